"""A blocking reader for a process's `/metrics`."""

import urllib.request

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

TIMEOUT_S = 5.0


def samples(url: str) -> list[Sample]:
    """Return all samples at this URL. Raises OSError if nothing answers."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
        text = response.read().decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(url: str, name: str, **labels: str) -> float:
    """Return the sum of all samples with this name and these labels."""
    return sum(
        sample.value for sample in samples(url) if sample.name == name and labels.items() <= sample.labels.items()
    )
