"""The preparation of a bare machine, tested without changing this one."""

from pathlib import Path

import pytest

from deploy import bootstrap


def test_services_are_blocked_only_during_installation(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    with bootstrap.services_kept_from_starting(policy):
        assert policy.read_text().endswith("exit 101\n")
        assert policy.stat().st_mode & 0o111
    assert not policy.exists()


def test_policy_is_removed_after_failure(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    with pytest.raises(SystemExit), bootstrap.services_kept_from_starting(policy):
        bootstrap.stop("no such package")
    assert not policy.exists()


def test_existing_policy_is_kept(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("the machine's own")
    with bootstrap.services_kept_from_starting(policy):
        assert policy.read_text() == "the machine's own"
    assert policy.read_text() == "the machine's own"


def test_failing_command_exits_with_end_of_output() -> None:
    with pytest.raises(SystemExit, match=r"(?s)failed: sh .*no such thing"):
        bootstrap.run_or_stop(["sh", "-c", "echo no such thing; exit 3"])


def test_missing_command_does_not_run() -> None:
    assert not bootstrap.succeeds("/nonexistent/python", "-m", "pip")
