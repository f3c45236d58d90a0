"""What gateways ask of chat_service: commands to the one writer of a room, and queries. Pure."""

from shared.commands import Command, Wire
from shared.protocol import UserProfile

# Room commands: `chat.<partition of the room>` ---------------------------------------------------------------------


class RoomCommand(Command, frozen=True, kw_only=True):
    """A command to the one writer of a room."""

    room_id: str


class SendMessage(RoomCommand, frozen=True, kw_only=True, tag="send"):
    """Store a message and deliver it. Reply: `Sent`. `message_id` is the caller's to make, once."""

    message_id: str
    message: str
    client_message_id: str | None = None


class CreateRoom(RoomCommand, frozen=True, kw_only=True, tag="create"):
    """Reply: `RoomView`. Created twice with one `room_id` (redelivery) is created once."""

    name: str
    description: str
    type: str
    member_ids: tuple[str, ...] = ()


class SubscribeRoom(RoomCommand, frozen=True, kw_only=True, tag="subscribe"):
    """May the caller listen, and from which seq on? Reply: `RoomHead`. Through the partition, so that it is in one
    order with sends and removals."""


class RoomHead(Wire, frozen=True, kw_only=True):
    seq: int
    active_now: int


class Sent(Wire, frozen=True, kw_only=True):
    """Where a message stands now; `repeated` if it was there before, by its clientMessageId or by redelivery."""

    room_id: str
    message_id: str
    seq: int
    client_message_id: str | None
    created_at: str
    repeated: bool = False


class RoomView(Wire, frozen=True, kw_only=True):
    """A room as REST shows it."""

    id: str
    name: str
    description: str
    type: str
    member_count: int
    active_now: int
    last_message_at: str | None
    created_by: str
    created_at: str


class MessageView(Wire, frozen=True, kw_only=True):
    """A message as REST shows it."""

    id: str
    chatroom_id: str
    user_id: str
    user: UserProfile
    message: str
    created_at: str
    seq: int
    client_message_id: str | None


# Chat queries: `chat.query` -----------------------------------------------------------------------------------------


class ListRooms(Command, frozen=True, kw_only=True, tag="rooms"):
    """Reply: `RoomPage`."""

    page: int
    limit: int
    type: str | None = None
    q: str | None = None


class GetRoom(Command, frozen=True, kw_only=True, tag="room"):
    """Reply: `RoomView`."""

    room_id: str


class ListMessages(Command, frozen=True, kw_only=True, tag="messages"):
    """Newest first. Reply: `MessagePage`."""

    room_id: str
    page: int
    limit: int
    before: int | None = None
    after: int | None = None


class ReplayMessages(Command, frozen=True, kw_only=True, tag="replay"):
    """The messages with `after` < seq ≤ `through`, oldest first, as finished frames. Reply: `Replay`.

    Asked by a gateway that has already been told by the partition that its client may listen.
    """

    room_id: str
    after: int
    through: int


class RoomPage(Wire, frozen=True, kw_only=True):
    items: tuple[RoomView, ...]
    total: int


class MessagePage(Wire, frozen=True, kw_only=True):
    items: tuple[MessageView, ...]
    total: int


RoomCommands = SendMessage | CreateRoom | SubscribeRoom
ChatQueries = ListRooms | GetRoom | ListMessages | ReplayMessages
