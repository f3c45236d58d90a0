"""REST under `/v1`: query and body in, a command to a service, its answer in the envelope of protocol.md."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from aiohttp import web

from gateway.auth import Authenticator, Identity
from gateway.backend import Backend
from shared import chat_commands as chat
from shared import validation
from shared.encoding import to_json
from shared.errors import ErrorCode, Malformed, Refusal
from shared.ids import Prefix, new_id
from shared.validation import ClientMessageId, Id, MessageText, Seq

T = TypeVar("T")

Page = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=100)]
RoomName = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"\S")]
Description = Annotated[str, msgspec.Meta(max_length=1000)]
RoomType = Literal["public", "private", "group"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _In(msgspec.Struct, frozen=True, rename="camel"):
    """A query or a body; what we do not know is passed over."""


class ListQuery(_In, frozen=True):
    page: Page = 1
    limit: Limit = 20


class RoomsQuery(_In, frozen=True):
    page: Page = 1
    limit: Limit = 20
    type: RoomType | None = None
    q: Annotated[str, msgspec.Meta(max_length=100)] | None = None


class MessagesQuery(_In, frozen=True):
    page: Page = 1
    limit: Limit = 50
    before: Seq | None = None
    after: Seq | None = None


class IdsQuery(_In, frozen=True):
    ids: Annotated[str, msgspec.Meta(min_length=1, max_length=20_000)]


class NewRoom(_In, frozen=True):
    name: RoomName
    description: Description = ""
    type: RoomType = "public"
    member_ids: Annotated[list[Id], msgspec.Meta(max_length=1000)] = []


class RoomChange(_In, frozen=True):
    name: RoomName | None = None
    description: Description | None = None
    type: RoomType | None = None


class NewMessage(_In, frozen=True):
    message: MessageText
    client_message_id: ClientMessageId | None = None


class NewDirect(_In, frozen=True):
    user_id: Id
    message: MessageText
    client_message_id: ClientMessageId | None = None


class NewReadMark(_In, frozen=True):
    seq: Seq


class UserIds(_In, frozen=True):
    ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=100)]


class Rest:
    """The handlers; each raises Refusal or Unavailable, of which `gateway.app` makes the failure envelope."""

    def __init__(self, authenticator: Authenticator, backend: Backend) -> None:
        self._authenticator = authenticator
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        """Every call under `/v1`."""
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
        caller = self._identity(request).caller
        query = _query(request, RoomsQuery)
        command = chat.ListRooms(
            **self._backend.head(caller), page=query.page, limit=query.limit, type=query.type, q=query.q
        )
        found = await self._backend.chat_query(command, chat.RoomPage)
        return _page(found.items, query.page, query.limit, found.total)

    async def create_room(self, request: web.Request) -> web.Response:
        caller = self._identity(request).caller
        body = await _body(request, NewRoom)
        command = chat.CreateRoom(
            **self._backend.head(caller),
            room_id=new_id(Prefix.ROOM),
            name=body.name.strip(),
            description=body.description,
            type=body.type,
            member_ids=tuple(dict.fromkeys(body.member_ids)),
        )
        return _success(await self._backend.room(command, chat.RoomView), status=201)

    async def get_room(self, request: web.Request) -> web.Response:
        caller = self._identity(request).caller
        query = chat.GetRoom(**self._backend.head(caller), room_id=_room_id(request))
        return _success(await self._backend.chat_query(query, chat.RoomView))

    async def update_room(self, request: web.Request) -> web.Response:
        caller = self._identity(request).caller
        body = await _body(request, RoomChange)
        command = chat.UpdateRoom(
            **self._backend.head(caller),
            room_id=_room_id(request),
            name=None if body.name is None else body.name.strip(),
            description=body.description,
            type=body.type,
        )
        return _success(await self._backend.room(command, chat.RoomView))

    async def delete_room(self, request: web.Request) -> web.Response:
        caller = self._identity(request).caller
        command = chat.DeleteRoom(**self._backend.head(caller), room_id=_room_id(request))
        return _success(await self._backend.room(command, chat.Gone))

    async def join_room(self, request: web.Request) -> web.Response:
        caller = self._identity(request).caller
        command = chat.JoinRoom(**self._backend.head(caller), room_id=_room_id(request))
        return _success(await self._backend.room(command, chat.RoomView))

    async def leave_room(self, request: web.Request) -> web.Response:
        caller = self._identity(request).caller
        command = chat.LeaveRoom(**self._backend.head(caller), room_id=_room_id(request))
        return _success(await self._backend.room(command, chat.RoomView))

    # Messages -------------------------------------------------------------------------------------------------------

    async def list_messages(self, request: web.Request) -> web.Response:
        caller = self._identity(request).caller
        query = _query(request, MessagesQuery)
        command = chat.ListMessages(
            **self._backend.head(caller),
            room_id=_room_id(request),
            page=query.page,
            limit=query.limit,
            before=query.before,
            after=query.after,
        )
        found = await self._backend.chat_query(command, chat.MessagePage)
        return _page(found.items, query.page, query.limit, found.total)

    async def send_message(self, request: web.Request) -> web.Response:
        caller = self._identity(request).caller
        room_id = _room_id(request)
        body = await _body(request, NewMessage)
        sent = await self._backend.send_message(caller, room_id, body.message, body.client_message_id)
        return _success(sent.message, status=200 if sent.repeated else 201)

    async def send_direct(self, request: web.Request) -> web.Response:
        caller = self._identity(request).caller
        body = await _body(request, NewDirect)
        sent = await self._backend.send_direct(caller, body.user_id, body.message, body.client_message_id)
        return _success(sent.message, status=200 if sent.repeated else 201)

    async def mark_read(self, request: web.Request) -> web.Response:
        caller = self._identity(request).caller
        room_id = _room_id(request)
        body = await _body(request, NewReadMark)
        return _success(await self._backend.mark_read(caller, room_id, body.seq))

    # Members and presence -------------------------------------------------------------------------------------------

    async def list_members(self, request: web.Request) -> web.Response:
        caller = self._identity(request).caller
        query = _query(request, ListQuery)
        command = chat.ListMembers(
            **self._backend.head(caller), room_id=_room_id(request), page=query.page, limit=query.limit
        )
        found = await self._backend.chat_query(command, chat.MemberPage)
        return _page(found.items, query.page, query.limit, found.total)

    async def add_member(self, request: web.Request) -> web.Response:
        caller = self._identity(request).caller
        command = chat.AddMember(
            **self._backend.head(caller), room_id=_room_id(request), user_id=_path_id(request, "user_id", "userId")
        )
        return _success(await self._backend.room(command, chat.MemberView))

    async def remove_member(self, request: web.Request) -> web.Response:
        caller = self._identity(request).caller
        command = chat.RemoveMember(
            **self._backend.head(caller), room_id=_room_id(request), user_id=_path_id(request, "user_id", "userId")
        )
        return _success(await self._backend.room(command, chat.Gone))

    async def get_presence(self, request: web.Request) -> web.Response:
        caller = self._identity(request).caller
        state = await self._backend.presence(caller, (_path_id(request, "user_id", "userId"),))
        return _success(state.users[0])

    async def list_presence(self, request: web.Request) -> web.Response:
        caller = self._identity(request).caller
        ids = _query(request, IdsQuery).ids.split(",")
        users = validation.convert({"ids": [part.strip() for part in ids if part.strip()]}, UserIds)
        state = await self._backend.presence(caller, tuple(dict.fromkeys(users.ids)))
        return _success(state.users)

    def _identity(self, request: web.Request) -> Identity:
        """Who calls. Raises UNAUTHORIZED or TOKEN_EXPIRED."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Refusal(ErrorCode.UNAUTHORIZED, "send the header Authorization: Bearer <token>")
        return self._authenticator.verify(token.strip())


def _room_id(request: web.Request) -> str:
    """The room of the path; what cannot be an id is no room."""
    try:
        return _path_id(request, "room_id", "chatroomId")
    except Refusal:
        raise Refusal.not_found("room") from None


class _PathId(msgspec.Struct, frozen=True):
    value: Id


def _path_id(request: web.Request, name: str, field: str) -> str:
    try:
        return validation.convert({"value": request.match_info[name]}, _PathId).value
    except Refusal:
        raise Refusal.invalid(field, "is not an id") from None


def _query(request: web.Request, kind: type[T]) -> T:
    """The query string as `kind`. Raises VALIDATION with the parameter's name; an empty parameter counts as absent."""
    return validation.convert({name: value for name, value in request.query.items() if value != ""}, kind)


async def _body(request: web.Request, kind: type[T]) -> T:
    """The JSON body as `kind`. Raises VALIDATION, TOO_LARGE (413) or BAD_FRAME (400, no JSON)."""
    if request.content_type not in ("application/json", "application/octet-stream", "text/plain"):
        raise web.HTTPUnsupportedMediaType
    body = await request.read()
    try:
        return validation.decode(body, msgspec.json.Decoder(kind))
    except Malformed as error:
        raise Refusal.invalid("body", str(error)) from error


def _success(data: Any, status: int = 200) -> web.Response:
    return json_response({"success": True, "status": status, "data": data}, status)


def _page(items: Any, page: int, limit: int, total: int) -> web.Response:
    pagination = {"page": page, "limit": limit, "total": total, "pages": -(-total // limit)}
    return json_response({"success": True, "status": 200, "data": items, "pagination": pagination}, 200)


def json_response(body: Any, status: int) -> web.Response:
    """A JSON response."""
    return web.Response(body=to_json(body), status=status, content_type="application/json", charset="utf-8")
