"""A restore is noticed once, by the first generation that takes the place of another."""

from gateway.commands.restore_detector import GENERATIONS_KEPT, RestoreDetector


def test_first_generation_is_no_restore() -> None:
    detector = RestoreDetector()
    assert not detector.is_restored("gen_1")
    assert not detector.is_restored("gen_1")


def test_new_generation_is_a_restore_once() -> None:
    detector = RestoreDetector()
    detector.is_restored("gen_1")
    assert [detector.is_restored("gen_2") for _ in range(2)] == [True, False]


def test_replica_of_before_the_restore_is_outdated() -> None:
    detector = RestoreDetector()
    detector.is_restored("gen_1")
    detector.is_restored("gen_2")
    assert not detector.is_restored("gen_1")
    assert [detector.is_outdated(one) for one in ("gen_1", "gen_2")] == [True, False]


def test_replica_of_earlier_release_says_nothing() -> None:
    detector = RestoreDetector()
    assert not detector.is_restored("")
    detector.is_restored("gen_1")
    assert not detector.is_restored("")
    assert not detector.is_outdated("")


def test_memory_is_bounded() -> None:
    detector = RestoreDetector()
    for number in range(GENERATIONS_KEPT + 5):
        detector.is_restored(f"gen_{number}")
    assert detector.is_restored("gen_0")  # forgotten
