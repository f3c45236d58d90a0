"""Answers to bodies, sent with the deliveries of their batch and kept for repeats."""

from collections.abc import Collection, Sequence
from functools import cache

from prometheus_client import Counter

from chat_service import metrics
from chat_service.partitions.batch import Body, Job, Outcome
from chat_service.partitions.body_dedup import BodyDedup, Copy
from chat_service.partitions.commit_path import Outlet
from chat_service.partitions.limits import Answered, Limits
from chat_service.partitions.settlement import ChargeOutcome, outcome_of
from chat_service.rooms.decision import Answer
from shared.bus.delivery import Delivery, DeliveryKind
from shared.commands.body import BodyAnswered, BodyHead
from shared.commands.chat import DeleteMessage, EditMessage, Sent
from shared.commands.command import refusal_line, reply_line, request_id_of
from shared.encoding import to_json
from shared.errors import Refusal
from shared.telemetry import logs

log = logs.get(__name__)


class BodyAnswers:
    """Answers the bodies of one partition under one term, each once; a repeat is answered from memory."""

    def __init__(self, term: int, limits: Limits, outlet: Outlet) -> None:
        self._term = term
        self._limits = limits
        self._outlet = outlet
        self._dedup = BodyDedup()

    def is_new(self, head: BodyHead) -> bool:
        """Note an arriving body, and return whether to decide it. Answer a repeat of an answered body from memory."""
        copy = self._dedup.arrive(head)
        if copy is Copy.ANSWERED:
            answer = self._deliveries_of(head, self._dedup.answer_of(head))
            self._outlet.send_deliveries(answer, [head.reply_to])
        return copy is Copy.NEW

    def send(self, batch: Sequence[Body], outcome: Outcome) -> None:
        """Send all results of a batch in one publish: deliveries first, then each body's answer."""
        deliveries = outcome.deliveries
        queues: list[str] = []
        answered: list[Answered] = []
        position = 0
        erased: set[str] = set()
        for body in batch:
            own = outcome.answers[position : position + len(body.jobs)]
            position += len(body.jobs)
            replies = tuple(
                _reply(job, answer) for job, answer in zip(body.jobs, own, strict=True) if answer is not None
            )
            for job, answer in zip(body.jobs, own, strict=True):
                _count(job, answer)
                if isinstance(job.command, DeleteMessage | EditMessage) and not isinstance(answer, Refusal):
                    erased.add(job.command.message_id)
                if job.verdict is not None:
                    answered.append((job.command, job.verdict, _charge_outcome(job, answer)))
            queues.append(self._dedup.answer(body.head, replies))
            deliveries += self._deliveries_of(body.head, replies)
        self._limits.settle(answered)  # before the answers, so that a refund precedes the caller's next command
        self._outlet.send_deliveries(deliveries, queues)
        if erased:
            self._dedup.forget_answers(erased)

    def send_moved(self, bodies: Collection[Body]) -> None:
        """Answer "moved": another process owns the partition now."""
        for body in bodies:
            self._outlet.send_deliveries([moved_delivery(body.head)], [body.head.reply_to])

    def _deliveries_of(self, head: BodyHead, replies: Sequence[bytes]) -> list[Delivery]:
        answers = [Delivery.reply(head.gateway, self._term, reply) for reply in replies]
        return [*answers, _end_of_answer(head, self._term, is_moved=False)]


def moved_delivery(head: BodyHead) -> Delivery:
    """Return the answer to a body that was not decided here."""
    return _end_of_answer(head, head.term, is_moved=True)


def _end_of_answer(head: BodyHead, term: int, *, is_moved: bool) -> Delivery:
    end = BodyAnswered(number=head.number, partition=head.partition, term=term, is_moved=is_moved)
    return Delivery(head.gateway, DeliveryKind.ANSWERED, 0, "", to_json(end))


def _charge_outcome(job: Job, answer: Answer) -> ChargeOutcome:
    assert job.verdict is not None, "the command was charged"  # noqa: S101
    limit, user_id = job.verdict.refusal, job.command.caller.user_id
    return outcome_of(user_id, answer, limit, job.entry, was_refused_by_log=job.was_refused_by_log)


def _reply(job: Job, answer: Answer) -> bytes:
    return refusal_line(job.command.id, answer) if isinstance(answer, Refusal) else reply_line(job.command.id, answer)


def _count(job: Job, answer: Answer) -> None:
    if isinstance(answer, Sent) and answer.repeated:
        metrics.MESSAGES_REPEATED.inc()
    _counter(job.command.op, _outcome(answer)).inc()
    if logs.details:
        request_id = request_id_of(job.command)
        log.debug("command_done", request_id=request_id, op=job.command.op, command_id=job.command.id)


@cache
def _counter(op: str, outcome: str) -> Counter:
    return metrics.COMMANDS.labels(op, outcome)  # HOT: 2.5 us, so kept; both sets are closed


def _outcome(answer: Answer) -> str:
    if answer is None:
        return "expired"
    return answer.code if isinstance(answer, Refusal) else "ok"
