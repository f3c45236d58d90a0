"""REST calls for rooms, members and presence: each sends one command to chat_service."""

from typing import Annotated, Literal

import msgspec

from gateway.rest.call import Calls, Created, Paged, RoomId, delete, get, post, put
from gateway.rest.envelope import Limit, ListQuery, Page, RequestStruct
from shared.commands import chat, chat_queries, chat_views
from shared.commands.activity import UnreadTotals, totals_of
from shared.commands.command import Caller
from shared.errors import ErrorCode
from shared.ids import Prefix, new_id
from shared.protocol.server_frames import PresenceView
from shared.protocol.validation import VISIBLE_PATTERN, ShownUserId, UserId

RoomName = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=VISIBLE_PATTERN)]
Description = Annotated[str, msgspec.Meta(max_length=1000)]
RoomType = Literal["public", "private", "group"]


class RoomsQuery(RequestStruct, frozen=True):
    """`q` matches the start of any word in the room's name."""

    page: Page = 1
    limit: Limit = 20
    type: RoomType | None = None
    q: Annotated[str, msgspec.Meta(max_length=100)] | None = None


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


class MemberChange(RequestStruct, frozen=True):
    """The member's role; without one, a new user becomes `member` and a member keeps theirs."""

    role: chat.MemberRole | None = None


class ChatCalls(Calls):
    """Rooms, members and presence."""

    # Rooms ----------------------------------------------------------------------------------------------------------

    @get("/v1/chatrooms")
    async def list_rooms(self, caller: Caller, query: RoomsQuery) -> Paged[chat_views.RoomView]:
        """Return the public rooms and the caller's own rooms, most recently active first."""
        command = chat_queries.ListRooms(
            **self._backend.request_fields(caller), page=query.page, limit=query.limit, type=query.type, q=query.q
        )
        found = await self._backend.chat_request(command, chat_queries.RoomPage)
        return Paged(found.items, query.page, query.limit, found.total)

    @post("/v1/chatrooms", ErrorCode.RATE_LIMITED)
    async def create_room(self, caller: Caller, body: NewRoom) -> Created[chat_views.RoomView]:
        """Create a room. The caller becomes its creator and first member; `memberIds` become members too."""
        command = chat.CreateRoom(
            **self._backend.room_command_fields(caller),
            room_id=new_id(Prefix.ROOM),
            name=body.name.strip(),
            description=body.description,
            type=body.type,
            member_ids=tuple(dict.fromkeys(body.member_ids)),
        )
        return Created(await self._backend.room_command(command, chat_views.RoomView))

    @get("/v1/chatrooms/unread")
    async def list_unread(self, caller: Caller) -> UnreadTotals:
        """Return the caller's rooms with unread messages, direct ones too, the most recently active first."""
        return totals_of(await self._backend.unread_counts(caller))

    @get("/v1/chatrooms/{chatroomId}")
    async def get_room(self, caller: Caller, chatroom_id: RoomId) -> chat_views.RoomView:
        """Return a room. To non-members, a private or group room does not exist."""
        query = chat_queries.GetRoom(**self._backend.request_fields(caller), room_id=chatroom_id)
        return await self._backend.chat_request(query, chat_views.RoomView)

    @put("/v1/chatrooms/{chatroomId}")
    async def update_room(self, caller: Caller, chatroom_id: RoomId, body: RoomChange) -> chat_views.RoomView:
        """Change a room. Only the creator or an admin may."""
        command = chat.UpdateRoom(
            **self._backend.room_command_fields(caller),
            room_id=chatroom_id,
            name=None if body.name is None else body.name.strip(),
            description=body.description,
            type=body.type,
        )
        return await self._backend.room_command(command, chat_views.RoomView)

    @delete("/v1/chatrooms/{chatroomId}")
    async def delete_room(self, caller: Caller, chatroom_id: RoomId) -> chat.Gone:
        """Delete a room. Only the creator or an admin may.

        Subscribed sockets receive `chatroom:deleted` and `unsubscribed`.
        """
        command = chat.DeleteRoom(**self._backend.room_command_fields(caller), room_id=chatroom_id)
        return await self._backend.room_command(command, chat.Gone)

    @post("/v1/chatrooms/{chatroomId}/join", ErrorCode.RATE_LIMITED)
    async def join_room(self, caller: Caller, chatroom_id: RoomId) -> chat_views.RoomView:
        """Join a room. Idempotent. Only invited users may join private and group rooms."""
        command = chat.JoinRoom(**self._backend.room_command_fields(caller), room_id=chatroom_id)
        return await self._backend.room_command(command, chat_views.RoomView)

    @post("/v1/chatrooms/{chatroomId}/leave", ErrorCode.RATE_LIMITED)
    async def leave_room(self, caller: Caller, chatroom_id: RoomId) -> chat_views.RoomView:
        """Leave a room. Idempotent. A direct room cannot be left.

        A creator who leaves passes the room to the longest-standing moderator, or else to the longest-standing member.
        """
        command = chat.LeaveRoom(**self._backend.room_command_fields(caller), room_id=chatroom_id)
        return await self._backend.room_command(command, chat_views.RoomView)

    # Members and presence -------------------------------------------------------------------------------------------

    @get("/v1/chatrooms/{chatroomId}/members")
    async def list_members(self, caller: Caller, chatroom_id: RoomId, query: ListQuery) -> Paged[chat_views.MemberView]:
        """Return the members of a room with their presence."""
        command = chat_queries.ListMembers(
            **self._backend.request_fields(caller), room_id=chatroom_id, page=query.page, limit=query.limit
        )
        found = await self._backend.chat_request(command, chat_queries.MemberPage)
        return Paged(found.items, query.page, query.limit, found.total)

    @put("/v1/chatrooms/{chatroomId}/members/{userId}", ErrorCode.RATE_LIMITED)
    async def add_member(
        self, caller: Caller, chatroom_id: RoomId, user_id: UserId, body: MemberChange | None
    ) -> chat_views.MemberView:
        """Add a user to a room, or give a member another role. Only the creator or an admin may. Idempotent.

        Every socket of a user who becomes a member receives `member:invited`. `{"role": "creator"}` hands the room
        over: the previous creator becomes a moderator.
        """
        role = None if body is None else body.role
        command = chat.AddMember(
            **self._backend.room_command_fields(caller), room_id=chatroom_id, user_id=user_id, role=role
        )
        return await self._backend.room_command(command, chat_views.MemberView)

    @delete("/v1/chatrooms/{chatroomId}/members/{userId}")
    async def remove_member(self, caller: Caller, chatroom_id: RoomId, user_id: UserId) -> chat.Gone:
        """Remove a member. Only the creator or an admin may.

        Every socket of the user receives `unsubscribed` at once, and nothing of the room after it.
        """
        command = chat.RemoveMember(**self._backend.room_command_fields(caller), room_id=chatroom_id, user_id=user_id)
        return await self._backend.room_command(command, chat.Gone)

    @get("/v1/users/{userId}/presence")
    async def get_presence(self, caller: Caller, user_id: ShownUserId) -> PresenceView:
        """Return the presence of a user. A user never seen is offline."""
        return (await self._backend.presence(caller, (user_id,))).users[0]

    @get("/v1/presence")
    async def list_presence(self, caller: Caller, query: PresenceQuery) -> tuple[PresenceView, ...]:
        """Return the presence of several users, in the order requested."""
        return (await self._backend.presence(caller, tuple(dict.fromkeys(query.ids)))).users
