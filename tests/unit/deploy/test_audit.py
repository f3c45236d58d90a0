"""The interpretation of the vulnerability service's answer."""

import json
from typing import Any

import msgspec
import pytest

from deploy.tools.audit import result_of


def report(*dependencies: dict[str, Any]) -> bytes:
    return json.dumps({"dependencies": dependencies, "fixes": []}).encode()


def test_vulnerabilities_are_listed_with_fixed_versions() -> None:
    result = result_of(
        report(
            {"name": "good", "version": "1", "vulns": []},
            {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"], "aliases": []}]},
            {"name": "worse", "version": "3", "vulns": [{"id": "CVE-2", "fix_versions": []}]},
        )
    )
    assert result == (3, 0, ["bad 2: CVE-1, fixed in 2.1", "worse 3: CVE-2, fixed in no version"])


def test_unknown_package_counts_as_not_audited() -> None:
    assert result_of(report({"name": "x", "skip_reason": "not found"})) == (0, 1, [])


@pytest.mark.parametrize("answer", [b"", b"Traceback", b"{}"])
def test_malformed_report_is_error(answer: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        result_of(answer)
