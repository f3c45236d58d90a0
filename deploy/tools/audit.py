"""Check installed packages for known vulnerabilities and conflicts: `python -m deploy.tools.audit`, or `make audit`.

Exit code 1: vulnerabilities or conflicting packages. If the vulnerability service is unreachable or does not know the
packages, nothing was audited; that is reported, and with `--strict` the exit code is 2.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

TOOL = "pip-audit~=2.10"
TOOL_TIMEOUT_S = 300.0


class _Vulnerability(msgspec.Struct):
    id: str
    fix_versions: list[str] = []


class _Dependency(msgspec.Struct):
    name: str
    version: str = ""
    skip_reason: str | None = None
    vulns: list[_Vulnerability] = []


class _Report(msgspec.Struct):
    dependencies: list[_Dependency]


class AuditResult(NamedTuple):
    """Counts and findings of the vulnerability service."""

    audited: int
    not_audited: int
    found: list[str]


def result_of(report: bytes) -> AuditResult:
    """Parse pip-audit's JSON. Raises msgspec.MsgspecError if it is malformed."""
    dependencies = msgspec.json.decode(report, type=_Report).dependencies
    found = [
        f"{dependency.name} {dependency.version}: {flaw.id}, fixed in {', '.join(flaw.fix_versions) or 'no version'}"
        for dependency in dependencies
        for flaw in dependency.vulns
    ]
    skipped = sum(dependency.skip_reason is not None for dependency in dependencies)
    return AuditResult(len(dependencies) - skipped, skipped, found)


def main(arguments: Sequence[str]) -> int:
    """Check conflicts, query the service, print the result, and return the exit code."""
    fitting = _run([sys.executable, "-m", "pip", "check"])
    print(fitting.stdout.decode().strip())
    report = _ask()
    if report is None or not report.audited:
        print("NOT AUDITED: the vulnerability service is unreachable or does not know these packages")
        return 1 if fitting.returncode else 2 if "--strict" in arguments else 0
    print("\n".join(report.found))
    print(f"{report.audited} packages audited, {report.not_audited} not; {len(report.found)} known vulnerabilities")
    return 1 if report.found or fitting.returncode else 0


def _ask() -> AuditResult | None:
    """Run pip-audit in its own environment, so that its dependencies are not audited."""
    tool = Path(sys.prefix) / "audit"
    if not (tool / "bin" / "pip-audit").exists():
        _run([sys.executable, "-m", "venv", str(tool)])
        installed = _run([str(tool / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", TOOL])
        if installed.returncode:
            return None
    site = next(Path(sys.prefix).glob("lib/python*/site-packages"))
    asked = _run(
        [str(tool / "bin" / "pip-audit"), "--path", str(site), "--format", "json", "--progress-spinner", "off"]
    )
    try:
        return result_of(asked.stdout)
    except msgspec.MsgspecError:
        return None


def _run(command: list[str]) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(  # noqa: S603 - every command is a literal in this file
        command, check=False, capture_output=True, timeout=TOOL_TIMEOUT_S, stdin=subprocess.DEVNULL
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
