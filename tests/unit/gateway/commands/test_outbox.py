"""Command outbox by hand, and with the owner's deduplication under lost, repeated and moved bodies."""

from collections import deque

from hypothesis import example, given
from hypothesis import strategies as st

from chat_service.partitions.body_dedup import BodyDedup, Copy
from gateway.commands.backlog_limit import ANSWER_TARGET_MS
from gateway.commands.outbox import DATABASE_CALL_MS, RESEND_PAUSE_MS, SILENCE_MS, CommandOutbox, Route, Sending
from shared.commands.body import COMMANDS_BODY_MAX_BYTES, COMMANDS_MAX, BodyHead, decode_body

OWNER = Route("chat.node_1.1", 1)
SUCCESSOR = Route("chat.node_2.1", 2)
TTL_MS = 3_000


def outbox_with(*ids: str, owner: Route | None = OWNER) -> CommandOutbox:
    outbox = CommandOutbox("gateway_1", partitions=2)
    if owner is not None:
        outbox.learn_owner(0, owner, 0)
    for command_id in ids:
        assert outbox.add(0, command_id, command_id.encode(), TTL_MS)
    return outbox


def read(parcel: Sending) -> tuple[BodyHead, list[str]]:
    head, lines = decode_body(parcel.body)
    return head, [line.decode() for line in lines]


def test_waiting_commands_leave_in_one_body() -> None:
    (parcel,) = outbox_with("a", "b").due("gateway.queue", 7)
    head, commands = read(parcel)
    assert (parcel.queue, head.term, head.reply_to, head.sent_at_monotonic_ms) == (OWNER.queue, 1, "gateway.queue", 7)
    assert (commands, head.is_resent) == (["a", "b"], False)


def test_one_body_is_under_way_at_a_time() -> None:
    outbox = outbox_with("a")
    (first,) = outbox.due("q", 0)
    outbox.add(0, "b", b"b", TTL_MS)
    assert outbox.due("q", 0) == []
    assert outbox.answered(0, read(first)[0].number, read(first)[0].term, 1) == ["a"]
    (second,) = outbox.due("q", 0)
    assert read(second)[1] == ["b"]


def test_commands_wait_until_an_owner_is_known() -> None:
    outbox = outbox_with("a", owner=None)
    assert outbox.due("q", 0) == []
    outbox.learn_owner(0, OWNER, 0)
    assert len(outbox.due("q", 0)) == 1


def test_older_owner_is_ignored() -> None:
    outbox = outbox_with("a", owner=SUCCESSOR)
    outbox.learn_owner(0, OWNER, 0)
    (parcel,) = outbox.due("q", 0)
    assert parcel.queue == SUCCESSOR.queue


def test_owner_of_lower_term_is_accepted_after_a_restore() -> None:
    outbox = outbox_with("a", owner=SUCCESSOR)
    (before,) = outbox.due("q", 0)
    outbox.forget_owners()
    assert outbox.due("q", 1) == []
    outbox.learn_owner(0, OWNER, 2)
    (after,) = outbox.due("q", 2)
    assert (before.queue, after.queue) == (SUCCESSOR.queue, OWNER.queue)
    assert read(after)[0].is_resent


def test_body_under_way_follows_to_a_new_owner_marked_as_resent() -> None:
    outbox = outbox_with("a")
    (first,) = outbox.due("q", 0)
    outbox.learn_owner(0, SUCCESSOR, 1)
    (again,) = outbox.due("q", 1)
    assert again.queue == SUCCESSOR.queue
    assert read(again)[0].is_resent
    assert read(again)[0].number == read(first)[0].number


def test_moved_body_is_sent_again_after_a_pause() -> None:
    outbox = outbox_with("a")
    (first,) = outbox.due("q", 0)
    outbox.moved(0, read(first)[0].number, 1, 10)
    assert outbox.due("q", 10) == []
    assert len(outbox.due("q", 10 + RESEND_PAUSE_MS)) == 1


def test_moved_answer_of_an_earlier_copy_is_ignored() -> None:
    outbox = outbox_with("a")
    (first,) = outbox.due("q", 0)
    outbox.learn_owner(0, SUCCESSOR, 1)
    assert len(outbox.due("q", 1)) == 1
    outbox.moved(0, read(first)[0].number, 1, 2)
    assert outbox.due("q", 2 + RESEND_PAUSE_MS) == []


def test_silent_and_disconnected_bodies_are_sent_again() -> None:
    outbox = outbox_with("a")
    outbox.due("q", 0)
    assert outbox.tick(SILENCE_MS - 1) == []
    assert outbox.due("q", SILENCE_MS - 1) == []
    outbox.tick(SILENCE_MS)
    assert len(outbox.due("q", SILENCE_MS)) == 1
    outbox.reconnected(SILENCE_MS + 1)
    assert len(outbox.due("r", SILENCE_MS + 1)) == 1


def test_unsent_command_fails_when_it_expires() -> None:
    outbox = outbox_with("a", owner=None)
    assert outbox.tick(TTL_MS - 1) == []
    assert outbox.tick(TTL_MS) == ["a"]
    assert outbox.is_idle


def test_sent_command_fails_one_database_call_after_it_expires() -> None:
    outbox = outbox_with("a")
    outbox.due("q", 0)
    assert outbox.tick(TTL_MS + DATABASE_CALL_MS - 1) == []
    assert outbox.tick(TTL_MS + DATABASE_CALL_MS) == ["a"]
    assert outbox.is_idle


def test_outbox_is_bounded_in_number_and_bytes() -> None:
    outbox = CommandOutbox("g", 2)
    assert all(outbox.add(0, str(number), b"x", TTL_MS) for number in range(COMMANDS_MAX))
    assert not outbox.add(0, "one more", b"x", TTL_MS)
    assert outbox.add(1, "large", b"x" * COMMANDS_BODY_MAX_BYTES, TTL_MS)
    assert not outbox.add(1, "small", b"x", TTL_MS)


def test_late_answer_limits_the_commands_that_wait() -> None:
    outbox = outbox_with(*(str(number) for number in range(100)))
    (body,) = outbox.due("q", 0)
    outbox.answered(0, read(body)[0].number, 1, 10 * ANSWER_TARGET_MS)
    taken = [outbox.add(0, f"later {number}", b"x", TTL_MS) for number in range(COMMANDS_MAX)]
    assert sum(taken) == COMMANDS_MAX // 2
    assert not outbox.has_room(0)
    assert outbox.has_room(1)


def test_answer_of_a_resent_body_says_nothing_about_load() -> None:
    outbox = outbox_with("a")
    (body,) = outbox.due("q", 0)
    outbox.tick(SILENCE_MS)
    outbox.due("q", SILENCE_MS)
    outbox.answered(0, read(body)[0].number, 1, 2 * SILENCE_MS)
    assert all(outbox.add(0, str(number), b"x", TTL_MS) for number in range(COMMANDS_MAX))


# With owners, a lossy network, and a log ------------------------------------------------------------------------------


class SimulatedOwner:
    """Decides bodies as a partition does: deduplicated by body, and by command id where a body was sent before.

    The log refuses an owner that has not seen its newest entry; after that, the owner looks up every command.
    """

    def __init__(self, term: int, log: list[str]) -> None:
        self.term = term
        self._log = log
        self._seen = len(log)
        self._dedup = BodyDedup()

    def receive(self, body: bytes) -> tuple[str, int, int, int] | None:
        head, lines = decode_body(body)
        if head.term != self.term:
            return ("moved", head.partition, head.number, head.term)
        match self._dedup.arrive(head):
            case Copy.NEW:
                commands = [line.decode() for line in lines]
                looks_up = head.is_resent or self._seen < len(self._log)
                self._log += [one for one in commands if not (looks_up and one in self._log)]
                self._seen = len(self._log)
                self._dedup.answer(head, ())
            case Copy.STALE | Copy.UNDECIDED:
                return None
            case Copy.ANSWERED:
                pass
        return ("answered", head.partition, head.number, head.term)


steps = st.lists(
    st.sampled_from(["send", "send", "deliver", "deliver", "repeat", "lose", "answer", "answer", "lose answer"])
    | st.sampled_from(["move", "silence", "reconnect"]),
    max_size=60,
)


@example(["send", "move", "repeat", "lose"])
@given(steps)
def test_log_holds_every_command_once_and_in_order(script: list[str]) -> None:
    log: list[str] = []
    owners = [SimulatedOwner(1, log)]
    outbox = CommandOutbox("gateway_1", 1)
    outbox.learn_owner(0, Route("owner 0", 1), 0)
    bodies: deque[tuple[int, bytes]] = deque()
    answers: deque[tuple[str, int, int, int]] = deque()
    now_ms = sent = 0

    def deliver() -> None:
        index, body = bodies.popleft()
        if (answer := owners[index].receive(body)) is not None:
            answers.append(answer)

    def take_answer() -> None:
        what, partition, number, term = answers.popleft()
        if what == "moved":
            outbox.moved(partition, number, term, now_ms)
        else:
            outbox.answered(partition, number, term, now_ms)

    for step in [*script, *["silence", "deliver", "answer"] * 10]:
        match step:
            case "send":
                outbox.add(0, f"{sent:03}", f"{sent:03}".encode(), 10**9)
                sent += 1
            case "deliver" if bodies:
                deliver()
            case "repeat" if bodies:
                bodies.append(bodies[0])
            case "lose" if bodies:
                bodies.popleft()
            case "answer" if answers:
                take_answer()
            case "lose answer" if answers:
                answers.popleft()
            case "move":
                owners.append(SimulatedOwner(len(owners) + 1, log))
                outbox.learn_owner(0, Route(f"owner {len(owners) - 1}", len(owners)), now_ms)
            case "silence":
                now_ms += SILENCE_MS
                outbox.tick(now_ms)
            case "reconnect":
                bodies.clear()
                answers.clear()
                outbox.reconnected(now_ms)
            case _:
                pass
        bodies.extend((int(parcel.queue.split()[1]), parcel.body) for parcel in outbox.due("q", now_ms))
    while not outbox.is_idle:
        now_ms += SILENCE_MS
        outbox.tick(now_ms)
        bodies.extend((int(parcel.queue.split()[1]), parcel.body) for parcel in outbox.due("q", now_ms))
        while bodies:
            deliver()
        while answers:
            take_answer()
    assert log == [f"{number:03}" for number in range(sent)]
