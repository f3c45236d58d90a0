"""Rates that one gateway counts: by kind of frame, by user, exempt roles."""

import pytest

from gateway.settings import GatewaySettings
from gateway.user_rates import UserRates
from shared.commands.command import Caller
from shared.errors import ErrorCode, Refusal
from shared.protocol.client_frames import (
    ChatRead,
    ChatroomTarget,
    ChatSend,
    ChatTyping,
    PresenceGet,
    Request,
    Subscribe,
    Unsubscribe,
)

MINUTE_MS = 60_000
ANN, BEN = Caller(user_id="ann"), Caller(user_id="ben")
TYPING = ChatTyping(chatroom_id="room_1", is_typing=True)
READ = ChatRead(chatroom_id="room_1", seq=1)
PRESENCE = PresenceGet(user_ids=["ben"])
SUBSCRIBE = Subscribe(ChatroomTarget(chatroom_id="room_1"))


@pytest.fixture
def rates() -> UserRates:
    return UserRates(
        GatewaySettings(
            amqp_url="amqp://broker/",
            jwt_secret="s" * 32,
            rate_signals_per_minute=3,
            rate_subscribes_per_minute=2,
            rate_reads_per_minute=1,
        )
    )


def test_typing_read_and_presence_frames_share_one_rate(rates: UserRates) -> None:
    signals: list[Request] = [TYPING, READ, PRESENCE]
    for at_ms, request in enumerate(signals):
        rates.count_frame(request, ANN, at_ms)
    for request in signals:
        with pytest.raises(Refusal) as refused:
            rates.count_frame(request, ANN, 10)
        assert (refused.value.code, refused.value.retry_after_ms) == (ErrorCode.RATE_LIMITED, MINUTE_MS - 10)
    rates.count_frame(TYPING, BEN, 10)
    rates.count_frame(SUBSCRIBE, ANN, 10)
    rates.count_frame(TYPING, ANN, MINUTE_MS)


def test_subscribes_have_their_own_rate(rates: UserRates) -> None:
    for at_ms in (0, 1):
        rates.count_frame(SUBSCRIBE, ANN, at_ms)
    with pytest.raises(Refusal, match="subscriptions"):
        rates.count_frame(SUBSCRIBE, ANN, 2)


def test_other_frames_are_not_counted_here(rates: UserRates) -> None:
    others: list[Request] = [
        ChatSend(chatroom_id="room_1", message="hi"),
        Unsubscribe(ChatroomTarget(chatroom_id="room_1")),
    ]
    for at_ms in range(100):
        for request in others:
            rates.count_frame(request, ANN, at_ms)


@pytest.mark.parametrize("caller", [Caller(user_id="a", is_admin=True), Caller(user_id="s", is_service=True)], ids=repr)
def test_admins_and_services_are_exempt(rates: UserRates, caller: Caller) -> None:
    for at_ms in range(100):
        rates.count_frame(TYPING, caller, at_ms)
        rates.reads.count(caller, at_ms)


def test_reads_have_their_own_rate(rates: UserRates) -> None:
    rates.reads.count(ANN, 0)
    with pytest.raises(Refusal) as refused:
        rates.reads.count(ANN, 59_999)
    assert refused.value.retry_after_ms == 1
