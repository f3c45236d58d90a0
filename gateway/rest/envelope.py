"""Request parsing and response envelopes shared by all REST calls. The calls: `gateway.rest.call`."""

import asyncio
import math
from typing import Annotated, Any, Literal, NamedTuple, TypeVar
from urllib.parse import unquote, unquote_plus

import msgspec
import msgspec.inspect
from aiohttp import web

from shared.encoding import to_json
from shared.errors import Detail, ErrorCode, Malformed, Refusal
from shared.protocol import validation
from shared.protocol.wire_struct import WireStruct

T = TypeVar("T")

_SHAPES: dict[type[Any], "Shape"] = {}  # cache of `shape_of`, one entry per query type
BODY_TIMEOUT_S = 10.0
_BEARER = web.RequestKey("bearer_token", str)  # where `bearer_token` keeps its result in the request
SERVER = "realtime"  # aiohttp's default would disclose library versions

Page = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=100)]


class RequestStruct(msgspec.Struct, frozen=True, rename="camel"):
    """A query or a body. Unknown fields are ignored."""


class ListQuery(RequestStruct, frozen=True):
    """Page and page size."""

    page: Page = 1
    limit: Limit = 20


class Pagination(WireStruct, frozen=True, kw_only=True):
    """The position of a page in its list."""

    page: int
    limit: int
    total: int
    pages: int


class Continuation(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """`next` is the `before` of the next page; absent when the search is complete."""

    next: str | None = None


class Problem(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """An error code, a message, the time after which a retry may succeed, and the invalid fields."""

    code: ErrorCode
    message: str
    retry_after_ms: int | None = None
    details: tuple[Detail, ...] = ()


class Failure(WireStruct, frozen=True, kw_only=True):
    """The envelope of every unsuccessful answer."""

    success: Literal[False] = False
    status: int
    error: Problem


def bearer_token(request: web.BaseRequest) -> str:
    """Return the bearer token of a request, or "". The header is parsed once per request."""
    token = request.get(_BEARER)
    if token is None:
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        token = request[_BEARER] = rest.strip() if scheme.lower() == "bearer" else ""
    return token


def path_id(request: web.Request, name: str, kind: Any) -> str:
    """Return the id of type `kind` in a path segment. Raises VALIDATION."""
    try:
        unquote(request.rel_url.raw_path, errors="strict")  # yarl leaves bytes that are not UTF-8 escaped
        return str(msgspec.convert(request.match_info[name], kind))
    except UnicodeDecodeError:
        raise Refusal.invalid(name, "is not UTF-8") from None
    except msgspec.ValidationError as error:
        raise Refusal.invalid(name, validation.detail_of(error).reason) from None


def query_of(request: web.Request, kind: type[T]) -> T:
    """Decode the query string into `kind`.

    A tuple is a list parameter: its elements are separated by commas, each percent-encoded. A list may be repeated, any
    other parameter may not. Raises VALIDATION with the parameter's name. An empty parameter counts as absent. See
    `_elements_of` for commas.
    """
    shape = shape_of(kind)
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if value and name in given and name in shape.names - shape.lists:
            raise Refusal.invalid(name, "must be given once")
        if value:
            given[name] = f"{given[name]},{value}" if name in given else value
    values: dict[str, object] = {**given}
    for name in given.keys() & shape.lists:
        values[name] = _elements_of(request.rel_url.raw_query_string, name)
    for name in given.keys() - shape.texts:
        if given[name].lower() == "null":  # msgspec would decode it as None
            raise Refusal.invalid(name, "must not be null; leave it out")
    return validation.convert(values, kind)


def _elements_of(raw_query: str, name: str) -> list[str]:
    """Return the elements of a list parameter, of all its values.

    Many HTTP libraries encode the separators too. So `%2C` separates elements too, unless the same value also contains
    an unencoded comma; then `%2C` is part of an element.
    """
    elements: list[str] = []
    for part in raw_query.split("&"):
        key, _, value = part.partition("=")
        if key == name:
            elements += map(_decoded, value.split(",")) if "," in value else _decoded(value).split(",")
    return [validation.percent_decoded(element.strip()) for element in elements if element.strip()]


def _decoded(text: str) -> str:
    return unquote_plus(text, errors="surrogateescape")


class Shape(NamedTuple):
    """The parameters of a query. `lists` are the tuples among them, `texts` the strings."""

    names: frozenset[str]
    lists: frozenset[str]
    texts: frozenset[str]


def shape_of(kind: type[Any]) -> Shape:
    """Return the shape of a query type."""
    if (shape := _SHAPES.get(kind)) is None:
        info = msgspec.inspect.type_info(kind)
        fields = info.fields if isinstance(info, msgspec.inspect.StructType) else ()
        names = frozenset(field.encode_name for field in fields)
        lists = frozenset(field.encode_name for field in fields if _is(field.type, msgspec.inspect.VarTupleType))
        texts = frozenset(field.encode_name for field in fields if _is(field.type, msgspec.inspect.StrType))
        shape = _SHAPES[kind] = Shape(names, lists, texts)
    return shape


def _is(kind: msgspec.inspect.Type, wanted: type[msgspec.inspect.Type]) -> bool:
    match kind:
        case msgspec.inspect.UnionType(types=types):
            return any(_is(each, wanted) for each in types)
        case msgspec.inspect.Metadata(type=inner):
            return _is(inner, wanted)
        case _:
            return isinstance(kind, wanted)


async def has_body(request: web.Request) -> bool:
    """Return whether a request has a body of at least one byte. Raises 408."""
    if not request.can_read_body:
        return False
    return request.content_length is not None or bool(await _read(request))


async def body_of(request: web.Request, kind: type[T]) -> T:
    """Decode the JSON body into `kind`.

    Raises VALIDATION, or aiohttp's 408, 413 and 415. Compressed bodies are not accepted.
    """
    if request.content_type not in ("application/json", "application/octet-stream", "text/plain"):
        raise web.HTTPUnsupportedMediaType
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise web.HTTPUnsupportedMediaType
    body = await _read(request)
    try:
        return validation.decode(body, msgspec.json.Decoder(kind))
    except Malformed as error:
        raise Refusal.invalid("body", str(error)) from error


async def _read(request: web.Request) -> bytes:
    """Return the body, which the request keeps for the next call."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except (web.RequestPayloadError, ConnectionError) as error:
        raise Refusal.invalid("body", "was incomplete") from error


def success(data: Any, status: int = 200) -> web.Response:
    """Return the success envelope."""
    return json_response({"success": True, "status": status, "data": data}, status)


def page_of(items: Any, page: int, limit: int, total: int) -> web.Response:
    """Return the success envelope of one page."""
    pagination = Pagination(page=page, limit=limit, total=total, pages=-(-total // limit))
    return json_response({"success": True, "status": 200, "data": items, "pagination": pagination}, 200)


def found_of(items: Any, next_before: str | None) -> web.Response:
    """Return the success envelope of a search."""
    pagination = Continuation(next=next_before)
    return json_response({"success": True, "status": 200, "data": items, "pagination": pagination}, 200)


def json_response(body: Any, status: int) -> web.Response:
    """Return a JSON response."""
    return web.Response(
        body=to_json(body), status=status, content_type="application/json", charset="utf-8", headers={"Server": SERVER}
    )


def failure(refusal: Refusal, status: int) -> web.Response:
    """Return the failure envelope with Retry-After or WWW-Authenticate where they apply."""
    problem = Problem(
        code=refusal.code, message=refusal.message, retry_after_ms=refusal.retry_after_ms, details=refusal.details
    )
    response = json_response(Failure(status=status, error=problem), status)
    if refusal.retry_after_ms is not None:
        response.headers["Retry-After"] = str(math.ceil(refusal.retry_after_ms / 1000))
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
