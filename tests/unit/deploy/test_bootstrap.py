"""What makes a bare machine ready, as far as that shows without changing this one."""

from pathlib import Path

import pytest

from deploy import bootstrap


def test_services_are_kept_from_starting_only_meanwhile(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    with bootstrap.services_kept_from_starting(policy):
        assert policy.read_text().endswith("exit 101\n")
        assert policy.stat().st_mode & 0o111
    assert not policy.exists()


def test_the_policy_is_removed_after_a_failure_too(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    with pytest.raises(SystemExit), bootstrap.services_kept_from_starting(policy):
        bootstrap.stop("no such package")
    assert not policy.exists()


def test_a_policy_that_the_machine_has_stays(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("the machine's own")
    with bootstrap.services_kept_from_starting(policy):
        assert policy.read_text() == "the machine's own"
    assert policy.read_text() == "the machine's own"


def test_a_failing_command_stops_with_the_end_of_its_output() -> None:
    with pytest.raises(SystemExit, match=r"(?s)failed: sh .*no such thing"):
        bootstrap.run(["sh", "-c", "echo no such thing; exit 3"])


def test_a_command_that_does_not_exist_has_not_run() -> None:
    assert not bootstrap.runs("/nonexistent/python", "-m", "pip")
