"""What `make audit` makes of the vulnerability service's answer."""

import json
from typing import Any

import msgspec
import pytest

from deploy.tools.audit import verdict_of


def report(*dependencies: dict[str, Any]) -> bytes:
    return json.dumps({"dependencies": dependencies, "fixes": []}).encode()


def test_known_vulnerabilities_are_named_with_what_mends_them() -> None:
    verdict = verdict_of(
        report(
            {"name": "good", "version": "1", "vulns": []},
            {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"], "aliases": []}]},
            {"name": "worse", "version": "3", "vulns": [{"id": "CVE-2", "fix_versions": []}]},
        )
    )
    assert verdict == (3, 0, ["bad 2: CVE-1, mended in 2.1", "worse 3: CVE-2, mended in no version"])


def test_what_the_service_does_not_know_is_not_audited() -> None:
    assert verdict_of(report({"name": "x", "skip_reason": "not found"})) == (0, 1, [])


@pytest.mark.parametrize("answer", [b"", b"Traceback", b"{}"])
def test_no_report_is_no_verdict(answer: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        verdict_of(answer)
