"""Deduplication of command bodies for one term of one partition. Pure.

A gateway sends a body again when its answer is late, so the owner may hold the same body twice, or receive an old copy
after a newer body. For each gateway it keeps the highest number and the whole answer to it:

    lower number     → dropped: a newer body proves that the gateway has the answer
    same, undecided  → noted: the answer will go to the newest copy's queue
    same, answered   → the answer is sent again, to this copy's queue
    same, forgotten  → decided again: every command is resent, so it is answered from the log
    higher           → decided
"""

from collections.abc import Collection
from enum import Enum, auto
from typing import NamedTuple

from shared.commands.body import BodyHead

GATEWAYS_MAX = 1_000


class Copy(Enum):
    """The relation of an arriving body to the bodies before it."""

    NEW = auto()
    STALE = auto()
    UNDECIDED = auto()
    ANSWERED = auto()


class _LastBody(NamedTuple):
    number: int
    reply_to: str
    answer: tuple[bytes, ...] | None
    is_forgotten: bool = False


class BodyDedup:
    """The last body of each gateway. Bound: 1,000 gateways, answers up to 1 MB; the longest silent is evicted first."""

    def __init__(self) -> None:
        self._last: dict[str, _LastBody] = {}  # in order of the last body

    def arrive(self, head: BodyHead) -> Copy:
        """Classify an arriving body. Call `answer` for one that is NEW."""
        last = self._last.pop(head.gateway, None)
        if last is None or head.number > last.number or (last.is_forgotten and head.number == last.number):
            self._last[head.gateway] = _LastBody(head.number, head.reply_to, None)
            while len(self._last) > GATEWAYS_MAX:
                del self._last[next(iter(self._last))]
            return Copy.NEW
        if head.number < last.number:
            self._last[head.gateway] = last
            return Copy.STALE
        self._last[head.gateway] = last._replace(reply_to=head.reply_to)
        return Copy.UNDECIDED if last.answer is None else Copy.ANSWERED

    def answer(self, head: BodyHead, lines: tuple[bytes, ...]) -> str:
        """Keep the answer to a body and return the queue that it goes to."""
        last = self._last.get(head.gateway)
        if last is None or last.number != head.number:
            return head.reply_to
        self._last[head.gateway] = last._replace(answer=lines)
        return last.reply_to

    def answer_of(self, head: BodyHead) -> tuple[bytes, ...]:
        """Return the answer to a body that is ANSWERED."""
        return self._last[head.gateway].answer or ()

    def forget_answers(self, message_ids: Collection[str]) -> None:
        """Forget the answers that name one of these messages: they may hold a text that is erased now."""
        wanted = [id_.encode() for id_ in message_ids]
        for gateway, last in self._last.items():
            if last.answer is not None and any(id_ in line for line in last.answer for id_ in wanted):
                self._last[gateway] = last._replace(answer=None, is_forgotten=True)
