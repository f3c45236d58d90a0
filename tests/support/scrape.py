"""What a process exports on `/metrics`, read without an event loop."""

import urllib.request

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

TIMEOUT_S = 5.0


def samples(url: str) -> list[Sample]:
    """Everything at this URL. Raises OSError when nobody answers."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
        text = response.read().decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(url: str, name: str, **labels: str) -> float:
    """The sum of all samples of this name that have these labels."""
    return sum(
        sample.value for sample in samples(url) if sample.name == name and labels.items() <= sample.labels.items()
    )
