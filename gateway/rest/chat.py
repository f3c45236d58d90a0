"""Rooms, messages, members and presence over REST: query and body in, a command to chat_service, its answer out."""

from typing import Annotated, Literal

import msgspec
from aiohttp import web

from gateway.backend import Backend
from gateway.guard import Guard
from gateway.rest.envelope import Calls, In, Limit, Page, body_of, page_of, path_id, query_of, success
from shared import chat_commands as chat
from shared import validation
from shared.errors import Refusal
from shared.ids import Prefix, new_id
from shared.validation import ClientMessageId, Id, MessageText, Seq

RoomName = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"\S")]
Description = Annotated[str, msgspec.Meta(max_length=1000)]
RoomType = Literal["public", "private", "group"]


class ListQuery(In, frozen=True):
    page: Page = 1
    limit: Limit = 20


class RoomsQuery(In, frozen=True):
    page: Page = 1
    limit: Limit = 20
    type: RoomType | None = None
    q: Annotated[str, msgspec.Meta(max_length=100)] | None = None


class MessagesQuery(In, frozen=True):
    page: Page = 1
    limit: Limit = 50
    before: Seq | None = None
    after: Seq | None = None


class IdsQuery(In, frozen=True):
    ids: Annotated[str, msgspec.Meta(min_length=1, max_length=20_000)]


class NewRoom(In, frozen=True):
    name: RoomName
    description: Description = ""
    type: RoomType = "public"
    member_ids: Annotated[tuple[Id, ...], msgspec.Meta(max_length=1000)] = ()


class RoomChange(In, frozen=True):
    name: RoomName | None = None
    description: Description | None = None
    type: RoomType | None = None


class NewMessage(In, frozen=True):
    message: MessageText
    client_message_id: ClientMessageId | None = None


class NewDirect(In, frozen=True):
    user_id: Id
    message: MessageText
    client_message_id: ClientMessageId | None = None


class NewReadMark(In, frozen=True):
    seq: Seq


class UserIds(In, frozen=True):
    ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=100)]


class ChatCalls(Calls):
    """The handlers; each raises Refusal or Unavailable, of which `gateway.app` makes the failure envelope."""

    def __init__(self, guard: Guard, backend: Backend) -> None:
        super().__init__(guard)
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        """The calls of this group."""
        return [
            web.get("/v1/chatrooms", self.list_rooms),
            web.post("/v1/chatrooms", self.create_room),
            web.get("/v1/chatrooms/{room_id}", self.get_room),
            web.put("/v1/chatrooms/{room_id}", self.update_room),
            web.delete("/v1/chatrooms/{room_id}", self.delete_room),
            web.get("/v1/chatrooms/{room_id}/messages", self.list_messages),
            web.post("/v1/chatrooms/{room_id}/messages", self.send_message),
            web.post("/v1/chatrooms/{room_id}/join", self.join_room),
            web.post("/v1/chatrooms/{room_id}/leave", self.leave_room),
            web.post("/v1/chatrooms/{room_id}/read", self.mark_read),
            web.get("/v1/chatrooms/{room_id}/members", self.list_members),
            web.put("/v1/chatrooms/{room_id}/members/{user_id}", self.add_member),
            web.delete("/v1/chatrooms/{room_id}/members/{user_id}", self.remove_member),
            web.post("/v1/messages/direct", self.send_direct),
            web.get("/v1/users/{user_id}/presence", self.get_presence),
            web.get("/v1/presence", self.list_presence),
        ]

    # Rooms ----------------------------------------------------------------------------------------------------------

    async def list_rooms(self, request: web.Request) -> web.Response:
        caller = self.caller(request)
        query = query_of(request, RoomsQuery)
        command = chat.ListRooms(
            **self._backend.head(caller), page=query.page, limit=query.limit, type=query.type, q=query.q
        )
        found = await self._backend.chat_query(command, chat.RoomPage)
        return page_of(found.items, query.page, query.limit, found.total)

    async def create_room(self, request: web.Request) -> web.Response:
        caller = self.caller(request)
        body = await body_of(request, NewRoom)
        command = chat.CreateRoom(
            **self._backend.head(caller),
            room_id=new_id(Prefix.ROOM),
            name=body.name.strip(),
            description=body.description,
            type=body.type,
            member_ids=tuple(dict.fromkeys(body.member_ids)),
        )
        return success(await self._backend.room(command, chat.RoomView), status=201)

    async def get_room(self, request: web.Request) -> web.Response:
        caller = self.caller(request)
        query = chat.GetRoom(**self._backend.head(caller), room_id=_room_id(request))
        return success(await self._backend.chat_query(query, chat.RoomView))

    async def update_room(self, request: web.Request) -> web.Response:
        caller = self.caller(request)
        body = await body_of(request, RoomChange)
        command = chat.UpdateRoom(
            **self._backend.head(caller),
            room_id=_room_id(request),
            name=None if body.name is None else body.name.strip(),
            description=body.description,
            type=body.type,
        )
        return success(await self._backend.room(command, chat.RoomView))

    async def delete_room(self, request: web.Request) -> web.Response:
        caller = self.caller(request)
        command = chat.DeleteRoom(**self._backend.head(caller), room_id=_room_id(request))
        return success(await self._backend.room(command, chat.Gone))

    async def join_room(self, request: web.Request) -> web.Response:
        caller = self.caller(request)
        command = chat.JoinRoom(**self._backend.head(caller), room_id=_room_id(request))
        return success(await self._backend.room(command, chat.RoomView))

    async def leave_room(self, request: web.Request) -> web.Response:
        caller = self.caller(request)
        command = chat.LeaveRoom(**self._backend.head(caller), room_id=_room_id(request))
        return success(await self._backend.room(command, chat.RoomView))

    # Messages -------------------------------------------------------------------------------------------------------

    async def list_messages(self, request: web.Request) -> web.Response:
        caller = self.caller(request)
        query = query_of(request, MessagesQuery)
        command = chat.ListMessages(
            **self._backend.head(caller),
            room_id=_room_id(request),
            page=query.page,
            limit=query.limit,
            before=query.before,
            after=query.after,
        )
        found = await self._backend.chat_query(command, chat.MessagePage)
        return page_of(found.items, query.page, query.limit, found.total)

    async def send_message(self, request: web.Request) -> web.Response:
        caller = self.caller(request)
        room_id = _room_id(request)
        body = await body_of(request, NewMessage)
        sent = await self._backend.send_message(caller, room_id, body.message, body.client_message_id)
        return success(sent.message, status=200 if sent.repeated else 201)

    async def send_direct(self, request: web.Request) -> web.Response:
        caller = self.caller(request)
        body = await body_of(request, NewDirect)
        sent = await self._backend.send_direct(caller, body.user_id, body.message, body.client_message_id)
        return success(sent.message, status=200 if sent.repeated else 201)

    async def mark_read(self, request: web.Request) -> web.Response:
        caller = self.caller(request)
        room_id = _room_id(request)
        body = await body_of(request, NewReadMark)
        return success(await self._backend.mark_read(caller, room_id, body.seq))

    # Members and presence -------------------------------------------------------------------------------------------

    async def list_members(self, request: web.Request) -> web.Response:
        caller = self.caller(request)
        query = query_of(request, ListQuery)
        command = chat.ListMembers(
            **self._backend.head(caller), room_id=_room_id(request), page=query.page, limit=query.limit
        )
        found = await self._backend.chat_query(command, chat.MemberPage)
        return page_of(found.items, query.page, query.limit, found.total)

    async def add_member(self, request: web.Request) -> web.Response:
        caller = self.caller(request)
        command = chat.AddMember(
            **self._backend.head(caller), room_id=_room_id(request), user_id=path_id(request, "user_id", "userId")
        )
        return success(await self._backend.room(command, chat.MemberView))

    async def remove_member(self, request: web.Request) -> web.Response:
        caller = self.caller(request)
        command = chat.RemoveMember(
            **self._backend.head(caller), room_id=_room_id(request), user_id=path_id(request, "user_id", "userId")
        )
        return success(await self._backend.room(command, chat.Gone))

    async def get_presence(self, request: web.Request) -> web.Response:
        caller = self.caller(request)
        state = await self._backend.presence(caller, (path_id(request, "user_id", "userId"),))
        return success(state.users[0])

    async def list_presence(self, request: web.Request) -> web.Response:
        caller = self.caller(request)
        ids = query_of(request, IdsQuery).ids.split(",")
        users = validation.convert({"ids": [part.strip() for part in ids if part.strip()]}, UserIds)
        state = await self._backend.presence(caller, tuple(dict.fromkeys(users.ids)))
        return success(state.users)


def _room_id(request: web.Request) -> str:
    """The room of the path; what cannot be an id is no room."""
    try:
        return path_id(request, "room_id", "chatroomId")
    except Refusal:
        raise Refusal.not_found("room") from None
