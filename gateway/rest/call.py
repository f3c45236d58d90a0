"""Declaration of a REST call. The server's routes and the OpenAPI document are both built from it.

    @get("/v1/chatrooms/{chatroomId}/messages")
    async def list_messages(self, caller: Caller, chatroom_id: RoomId, query: MessagesQuery) -> Paged[MessageView]:
        \"\"\"Return the messages of a room, newest first.\"\"\"

The handler's annotations are the declaration. `query` and `body` are decoded into their structs; a body declared as
`Change | None` may be absent. Each other parameter is the path segment of that name, and the return type selects the
envelope: `Paged`, `Found`, `Created`, `CreatedOnce`, or plain data. mypy checks the handler against its own
declaration.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from types import UnionType
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, TypeVar, get_args, get_origin

import msgspec
from aiohttp import web

from gateway.auth.authenticator import Authenticator
from gateway.auth.identity import Identity
from gateway.backend import Backend
from gateway.rest.envelope import (
    Continuation,
    Pagination,
    bearer_token,
    body_of,
    found_of,
    has_body,
    page_of,
    path_id,
    query_of,
    success,
)
from gateway.rest.piecewise_body import PIECE_BYTES, hold_until_written
from gateway.user_rates import UserRate
from shared.byte_budget import ByteBudget
from shared.errors import ErrorCode, Refusal
from shared.protocol.validation import Id
from shared.times import monotonic_ms

SMALL_ITEM_BYTES = 2 * 1024  # of a list: a room, a member, an alert, a candle

T = TypeVar("T")
Handle = Callable[..., Awaitable[Any]]


class NoSuch(NamedTuple):
    """Marker of a path segment whose malformed ids are answered with NOT_FOUND instead of VALIDATION."""

    what: str


RoomId = Annotated[Id, NoSuch("room")]
MessageId = Annotated[Id, NoSuch("message")]
NotificationId = Annotated[Id, NoSuch("notification")]
AlertId = Annotated[Id, NoSuch("alert")]


class PathPart(NamedTuple):
    """A path segment: its name in the path, and the type of its id."""

    name: str
    kind: Any


class Paged(Generic[T]):
    """One page of a list."""

    statuses: ClassVar[dict[int, str]] = {200: "One page of the list."}

    def __init__(self, items: Sequence[T], page: int, limit: int, total: int) -> None:
        self.items = items
        self.page = page
        self.limit = limit
        self.total = total

    def response(self) -> web.Response:
        """Return the envelope with `pagination`."""
        return page_of(self.items, self.page, self.limit, self.total)


class Created(Generic[T]):
    """A resource that this call created."""

    statuses: ClassVar[dict[int, str]] = {201: "Created."}

    def __init__(self, data: T) -> None:
        self.data = data
        self.status = 201

    def response(self) -> web.Response:
        """Return the envelope with status 201."""
        return success(self.data, status=self.status)


class CreatedOnce(Created[T], Generic[T]):
    """A resource that this call or an earlier one with the same client id created."""

    statuses: ClassVar[dict[int, str]] = {
        201: "Created.",
        200: "Sent before with the same `clientMessageId`; the stored message.",
    }

    def __init__(self, data: T, *, repeated: bool) -> None:
        super().__init__(data)
        self.status = 200 if repeated else 201


class Found(Generic[T]):
    """The results of a search, and the message before which it continues."""

    statuses: ClassVar[dict[int, str]] = {200: "The results, newest first. To continue, pass `next` as `before`."}

    def __init__(self, items: Sequence[T], next_before: str | None) -> None:
        self.items = items
        self.next_before = next_before

    def response(self) -> web.Response:
        """Return the envelope with `pagination`."""
        return found_of(self.items, self.next_before)


Answer = Paged[Any] | Found[Any] | Created[Any]
DONE = {200: "Success."}
_PAGINATIONS: Mapping[Any, type[msgspec.Struct]] = {Paged: Pagination, Found: Continuation}


class Call:
    """One declared call. `data` is the type of the answer's `data`; for a page, the type of one item."""

    def __init__(
        self, method: str, path: str, handle: Handle, refuses: frozenset[ErrorCode], item_max_bytes: int
    ) -> None:
        self.method = method
        self.path = path
        self.handle = handle
        self.name = handle.__name__
        self.doc = inspect.getdoc(handle) or ""
        declared = dict(handle.__annotations__)
        returned = declared.pop("return")
        kind = get_origin(returned)
        is_wrapped = isinstance(kind, type) and issubclass(kind, Paged | Found | Created)
        self.data: Any = get_args(returned)[0] if is_wrapped else returned
        self.pagination: type[msgspec.Struct] | None = _PAGINATIONS.get(kind) if is_wrapped else None
        self.statuses: dict[int, str] = kind.statuses if is_wrapped else DONE
        self.query: type[Any] | None = declared.pop("query", None)
        body = declared.pop("body", None)
        self.is_body_optional = isinstance(body, UnionType)  # `Body | None`
        self.body: type[Any] | None = get_args(body)[0] if self.is_body_optional else body
        declared.pop("caller")  # authenticated, not an input
        self.parts = {name: PathPart(camel(name), kind) for name, kind in declared.items()}
        self._no_such = {name: mark for name, kind in declared.items() if (mark := _mark_of(kind)) is not None}
        implied = {ErrorCode.NOT_FOUND: bool(self._no_such), ErrorCode.RATE_LIMITED: method == "GET"}
        self.refuses = refuses | {code for code, holds in implied.items() if holds}
        self._item_max_bytes = item_max_bytes

    def answer_max_bytes(self, arguments: Mapping[str, Any]) -> int:
        """Return the bytes to reserve: for a call with `limit`, that many items of the maximum size.

        Any other call reserves one item, although its answer may be larger.
        """
        return self._item_max_bytes * int(getattr(arguments.get("query"), "limit", 1))

    async def arguments(self, request: web.Request) -> dict[str, Any]:
        """Return the handler's arguments other than the caller. Raises Refusal."""
        given: dict[str, Any] = {name: self._part(request, name) for name in self.parts}
        if self.query is not None:
            given["query"] = query_of(request, self.query)
        if self.body is not None:
            is_absent = self.is_body_optional and not await has_body(request)
            given["body"] = None if is_absent else await body_of(request, self.body)
        return given

    def _part(self, request: web.Request, name: str) -> str:
        try:
            return path_id(request, *self.parts[name])
        except Refusal:
            if (no_such := self._no_such.get(name)) is None:
                raise
            raise Refusal.not_found(no_such.what) from None


def get(path: str, *refuses: ErrorCode, item_max_bytes: int = SMALL_ITEM_BYTES) -> Callable[[Handle], Call]:
    """Declare a GET. `refuses` lists error codes beyond the common ones and those implied by the inputs."""
    return partial(_declare, "GET", path, refuses, item_max_bytes=item_max_bytes)


def post(path: str, *refuses: ErrorCode) -> Callable[[Handle], Call]:
    """Declare a POST. `refuses` as for `get`."""
    return partial(_declare, "POST", path, refuses)


def put(path: str, *refuses: ErrorCode) -> Callable[[Handle], Call]:
    """Declare a PUT. `refuses` as for `get`."""
    return partial(_declare, "PUT", path, refuses)


def patch(path: str, *refuses: ErrorCode) -> Callable[[Handle], Call]:
    """Declare a PATCH. `refuses` as for `get`."""
    return partial(_declare, "PATCH", path, refuses)


def delete(path: str, *refuses: ErrorCode) -> Callable[[Handle], Call]:
    """Declare a DELETE. `refuses` as for `get`."""
    return partial(_declare, "DELETE", path, refuses)


def _declare(
    method: str,
    path: str,
    refuses: tuple[ErrorCode, ...],
    handle: Handle,
    *,
    item_max_bytes: int = SMALL_ITEM_BYTES,
) -> Call:
    return Call(method, path, handle, frozenset(refuses), item_max_bytes)


class Calls:
    """A group of calls: authenticates the caller and serves the declared handlers.

    Handlers raise Refusal or Unavailable; `gateway.http.app` turns both into the failure envelope.
    """

    def __init__(self, authenticator: Authenticator, backend: Backend, read_rate: UserRate, reads: ByteBudget) -> None:
        self._authenticator = authenticator
        self._backend = backend
        self._read_rate = read_rate
        self._reads = reads

    @classmethod
    def calls(cls) -> Iterator[Call]:
        """Return the calls that the class declares, in order."""
        return (member for member in vars(cls).values() if isinstance(member, Call))

    def routes(self) -> list[web.RouteDef]:
        """Return aiohttp routes for the calls of this group. A GET route serves HEAD too."""
        return [
            web.get(call.path, partial(self._serve, call))
            if call.method == "GET"
            else web.route(call.method, call.path, partial(self._serve, call))
            for call in self.calls()
        ]

    async def _serve(self, call: Call, request: web.Request) -> web.Response:
        caller = self._authenticate(request).caller
        if call.method != "GET":
            return _response(await call.handle(self, caller=caller, **await call.arguments(request)))
        self._read_rate.count(caller, monotonic_ms())
        arguments = await call.arguments(request)
        if (most_bytes := call.answer_max_bytes(arguments)) <= PIECE_BYTES:
            return _response(await call.handle(self, caller=caller, **arguments))
        hold = await self._reads.hold(caller.user_id, most_bytes)
        try:
            response = _response(await call.handle(self, caller=caller, **arguments))
        except BaseException:
            hold.release()
            raise
        hold_until_written(request, response, hold)
        return response

    def _authenticate(self, request: web.Request) -> Identity:
        """Return the caller's identity. Raises as `Authenticator.authenticate` does."""
        token = bearer_token(request)
        if not token:
            raise Refusal(ErrorCode.UNAUTHORIZED, "send the header Authorization: Bearer <token>")
        return self._authenticator.authenticate(token)


def _response(outcome: Any) -> web.Response:
    return outcome.response() if isinstance(outcome, Paged | Found | Created) else success(outcome)


def _mark_of(kind: Any) -> NoSuch | None:
    return next((mark for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, NoSuch)), None)


def camel(name: str) -> str:
    """Convert `chatroom_id` to `chatroomId`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
