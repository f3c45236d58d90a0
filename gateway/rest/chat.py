"""REST calls for rooms, messages, members and presence: each sends one command to chat_service."""

from typing import Annotated, Literal

import msgspec

from gateway.backend import read_sent
from gateway.rest.call import Calls, Created, CreatedOnce, Paged, RoomId, delete, get, post, put
from gateway.rest.envelope import Limit, Page, RequestStruct
from shared.commands import chat
from shared.commands.command import ITEM_MAX_BYTES, Caller
from shared.errors import ErrorCode
from shared.ids import Prefix, new_id
from shared.protocol.server_frames import PresenceView, ReadMark
from shared.protocol.validation import VISIBLE_PATTERN, ClientMessageId, MessageText, Seq, ShownUserId, UserId

RoomName = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=VISIBLE_PATTERN)]
Description = Annotated[str, msgspec.Meta(max_length=1000)]
RoomType = Literal["public", "private", "group"]


class ListQuery(RequestStruct, frozen=True):
    """Page and page size."""

    page: Page = 1
    limit: Limit = 20


class RoomsQuery(RequestStruct, frozen=True):
    """`q` matches the start of any word in the room's name."""

    page: Page = 1
    limit: Limit = 20
    type: RoomType | None = None
    q: Annotated[str, msgspec.Meta(max_length=100)] | None = None


class MessagesQuery(RequestStruct, frozen=True):
    """`before` and `after` are seqs, take precedence over `page`, and cost the same at any depth."""

    page: Page = 1
    limit: Limit = 50
    before: Seq | None = None
    after: Seq | None = None


class PresenceQuery(RequestStruct, frozen=True):
    """The users to look up, separated by commas, each percent-encoded."""

    ids: Annotated[tuple[ShownUserId, ...], msgspec.Meta(min_length=1, max_length=100)]


class NewRoom(RequestStruct, frozen=True):
    """The room to create."""

    name: RoomName
    description: Description = ""
    type: RoomType = "public"
    member_ids: Annotated[tuple[UserId, ...], msgspec.Meta(max_length=1000)] = ()


class RoomChange(RequestStruct, frozen=True):
    """Absent and null fields stay unchanged."""

    name: RoomName | None = None
    description: Description | None = None
    type: RoomType | None = None


class NewMessage(RequestStruct, frozen=True):
    """Sends with the same `clientMessageId` store one message (idempotent)."""

    message: MessageText
    client_message_id: ClientMessageId | None = None


class NewDirect(RequestStruct, frozen=True):
    """Sends with the same `clientMessageId` store one message (idempotent)."""

    user_id: UserId
    message: MessageText
    client_message_id: ClientMessageId | None = None


class NewReadMark(RequestStruct, frozen=True):
    """The seq of the last message that the caller has read."""

    seq: Seq


class MemberChange(RequestStruct, frozen=True):
    """The member's role; without one, a new user becomes `member` and a member keeps theirs."""

    role: chat.MemberRole | None = None


class ChatCalls(Calls):
    """Rooms, messages, members and presence."""

    # Rooms ----------------------------------------------------------------------------------------------------------

    @get("/v1/chatrooms")
    async def list_rooms(self, caller: Caller, query: RoomsQuery) -> Paged[chat.RoomView]:
        """Return the public rooms and the caller's own rooms, most recently active first."""
        command = chat.ListRooms(
            **self._backend.head(caller), page=query.page, limit=query.limit, type=query.type, q=query.q
        )
        found = await self._backend.chat_request(command, chat.RoomPage)
        return Paged(found.items, query.page, query.limit, found.total)

    @post("/v1/chatrooms", ErrorCode.RATE_LIMITED)
    async def create_room(self, caller: Caller, body: NewRoom) -> Created[chat.RoomView]:
        """Create a room. The caller becomes its creator and first member; `memberIds` become members too."""
        command = chat.CreateRoom(
            **self._backend.room_head(caller),
            room_id=new_id(Prefix.ROOM),
            name=body.name.strip(),
            description=body.description,
            type=body.type,
            member_ids=tuple(dict.fromkeys(body.member_ids)),
        )
        return Created(await self._backend.room_command(command, chat.RoomView))

    @get("/v1/chatrooms/{chatroomId}")
    async def get_room(self, caller: Caller, chatroom_id: RoomId) -> chat.RoomView:
        """Return a room. To non-members, a private or group room does not exist."""
        query = chat.GetRoom(**self._backend.head(caller), room_id=chatroom_id)
        return await self._backend.chat_request(query, chat.RoomView)

    @put("/v1/chatrooms/{chatroomId}")
    async def update_room(self, caller: Caller, chatroom_id: RoomId, body: RoomChange) -> chat.RoomView:
        """Change a room. Requires the creator or an admin."""
        command = chat.UpdateRoom(
            **self._backend.room_head(caller),
            room_id=chatroom_id,
            name=None if body.name is None else body.name.strip(),
            description=body.description,
            type=body.type,
        )
        return await self._backend.room_command(command, chat.RoomView)

    @delete("/v1/chatrooms/{chatroomId}")
    async def delete_room(self, caller: Caller, chatroom_id: RoomId) -> chat.Gone:
        """Delete a room. Requires the creator or an admin.

        Subscribed sockets receive `chatroom:deleted` and `unsubscribed`.
        """
        command = chat.DeleteRoom(**self._backend.room_head(caller), room_id=chatroom_id)
        return await self._backend.room_command(command, chat.Gone)

    @post("/v1/chatrooms/{chatroomId}/join", ErrorCode.RATE_LIMITED)
    async def join_room(self, caller: Caller, chatroom_id: RoomId) -> chat.RoomView:
        """Join a room. Idempotent. Private and group rooms admit only invited users."""
        command = chat.JoinRoom(**self._backend.room_head(caller), room_id=chatroom_id)
        return await self._backend.room_command(command, chat.RoomView)

    @post("/v1/chatrooms/{chatroomId}/leave", ErrorCode.RATE_LIMITED)
    async def leave_room(self, caller: Caller, chatroom_id: RoomId) -> chat.RoomView:
        """Leave a room. Idempotent. A direct room cannot be left.

        A creator who leaves passes the room to the longest-standing moderator, else to the longest-standing member.
        """
        command = chat.LeaveRoom(**self._backend.room_head(caller), room_id=chatroom_id)
        return await self._backend.room_command(command, chat.RoomView)

    # Messages -------------------------------------------------------------------------------------------------------

    @get("/v1/chatrooms/{chatroomId}/messages", item_max_bytes=ITEM_MAX_BYTES)
    async def list_messages(self, caller: Caller, chatroom_id: RoomId, query: MessagesQuery) -> Paged[chat.MessageView]:
        """Return the messages of a room, newest first."""
        command = chat.ListMessages(
            **self._backend.head(caller),
            room_id=chatroom_id,
            page=query.page,
            limit=query.limit,
            before=query.before,
            after=query.after,
        )
        found = await self._backend.chat_request(command, chat.MessagePage)
        return Paged(found.items, query.page, query.limit, found.total)

    @post("/v1/chatrooms/{chatroomId}/messages", ErrorCode.RATE_LIMITED)
    async def send_message(
        self, caller: Caller, chatroom_id: RoomId, body: NewMessage
    ) -> CreatedOnce[chat.MessageView]:
        """Send a message. Sending to a public room makes the caller a member."""
        sent = read_sent(await self._backend.send_message(caller, chatroom_id, body.message, body.client_message_id))
        return CreatedOnce(sent.message, repeated=sent.repeated)

    @post("/v1/messages/direct", ErrorCode.RATE_LIMITED)
    async def send_direct(self, caller: Caller, body: NewDirect) -> CreatedOnce[chat.MessageView]:
        """Send a message to one user. Creates the direct room of the two users if it does not exist."""
        sent = read_sent(await self._backend.send_direct(caller, body.user_id, body.message, body.client_message_id))
        return CreatedOnce(sent.message, repeated=sent.repeated)

    @post("/v1/chatrooms/{chatroomId}/read")
    async def mark_read(self, caller: Caller, chatroom_id: RoomId, body: NewReadMark) -> ReadMark:
        """Mark the room as read up to `seq` and return the mark. The mark never moves back."""
        return await self._backend.mark_read(caller, chatroom_id, body.seq)

    # Members and presence -------------------------------------------------------------------------------------------

    @get("/v1/chatrooms/{chatroomId}/members")
    async def list_members(self, caller: Caller, chatroom_id: RoomId, query: ListQuery) -> Paged[chat.MemberView]:
        """Return the members of a room with their presence."""
        command = chat.ListMembers(
            **self._backend.head(caller), room_id=chatroom_id, page=query.page, limit=query.limit
        )
        found = await self._backend.chat_request(command, chat.MemberPage)
        return Paged(found.items, query.page, query.limit, found.total)

    @put("/v1/chatrooms/{chatroomId}/members/{userId}", ErrorCode.RATE_LIMITED)
    async def add_member(
        self, caller: Caller, chatroom_id: RoomId, user_id: UserId, body: MemberChange | None
    ) -> chat.MemberView:
        """Add a user to a room, or give a member another role. Requires the creator or an admin. Idempotent.

        Every socket of a user who becomes a member receives `member:invited`. `{"role": "creator"}` hands the room
        over: the creator before becomes a moderator.
        """
        role = None if body is None else body.role
        command = chat.AddMember(**self._backend.room_head(caller), room_id=chatroom_id, user_id=user_id, role=role)
        return await self._backend.room_command(command, chat.MemberView)

    @delete("/v1/chatrooms/{chatroomId}/members/{userId}")
    async def remove_member(self, caller: Caller, chatroom_id: RoomId, user_id: UserId) -> chat.Gone:
        """Remove a member. Requires the creator or an admin.

        Every socket of the user receives `unsubscribed` at once, and nothing of the room after it.
        """
        command = chat.RemoveMember(**self._backend.room_head(caller), room_id=chatroom_id, user_id=user_id)
        return await self._backend.room_command(command, chat.Gone)

    @get("/v1/users/{userId}/presence")
    async def get_presence(self, caller: Caller, user_id: ShownUserId) -> PresenceView:
        """Return the presence of a user. A user never seen is offline."""
        return (await self._backend.presence(caller, (user_id,))).users[0]

    @get("/v1/presence")
    async def list_presence(self, caller: Caller, query: PresenceQuery) -> tuple[PresenceView, ...]:
        """Return the presence of several users, in the order requested."""
        return (await self._backend.presence(caller, tuple(dict.fromkeys(query.ids)))).users
