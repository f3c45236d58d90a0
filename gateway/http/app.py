"""The gateway's aiohttp application: routes, and every failure in the failure envelope."""

import time
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from gateway import metrics
from gateway.auth.authenticator import Authenticator
from gateway.http import cors
from gateway.live.endpoint import LiveEndpoint
from gateway.rest.envelope import SERVER, bearer_token, failure
from gateway.settings import GatewaySettings
from shared.errors import HTTP_STATUS, ErrorCode, Refusal, Unavailable
from shared.telemetry import correlation, logs, tracing
from shared.telemetry.traceparent import traceparent_of

log = logs.get(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID = "X-Request-Id"
TRACE_PARENT = "traceparent"

_CODES_BY_STATUS = {
    400: ErrorCode.VALIDATION,
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    413: ErrorCode.TOO_LARGE,
    414: ErrorCode.TOO_LARGE,
    431: ErrorCode.TOO_LARGE,
    503: ErrorCode.UNAVAILABLE,
}


def make_app(
    settings: GatewaySettings, authenticator: Authenticator, live: LiveEndpoint, routes: Iterable[web.RouteDef]
) -> web.Application:
    """Return the application of one gateway process."""

    @web.middleware
    async def with_key(request: web.Request, handler: Handler) -> web.StreamResponse:
        if token := bearer_token(request):
            await authenticator.refresh_keys_for(token)
        return await handler(request)

    app = web.Application(middlewares=[envelope], client_max_size=settings.max_message_bytes)
    cors.install(app, settings.allowed_origins)
    app.middlewares.append(with_key)
    app.on_response_prepare.append(_name_server)
    app.router.add_get("/v1/live", live.handle)
    fixed_first: list[web.RouteDef] = sorted(routes, key=lambda route: route.path.count("{"))
    app.add_routes(fixed_first)  # `…/messages/search` before `…/messages/{messageId}`
    return app


async def _name_server(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER


@web.middleware
async def envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every failure with the failure envelope. Measure REST calls, and set `X-Request-Id` on each answer."""
    started_s = time.perf_counter()
    resource = request.match_info.route.resource
    if resource is not None and resource.canonical == "/v1/live":
        return await _enveloped(request, handler)
    # A request that matches no route has a method and a path of the client's choice, which must not become labels.
    route = "none" if resource is None else f"{request.method} {resource.canonical}"
    request_id = correlation.choose(request.headers.get(REQUEST_ID))
    with (
        correlation.request(request_id),
        tracing.span(route, traceparent_of(request.headers.get(TRACE_PARENT))),
    ):
        response = await _enveloped(request, handler)
    response.headers[REQUEST_ID] = request_id
    metrics.REST_SECONDS.labels(route, str(response.status)).observe(time.perf_counter() - started_s)
    return response


async def _enveloped(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as refusal:
        return failure(refusal, HTTP_STATUS[refusal.code])
    except Unavailable as error:
        return failure(Refusal(ErrorCode.UNAVAILABLE, str(error), retry_after_ms=1000), 503)
    except web.HTTPException as error:
        return from_http(error)
    except ConnectionError:  # the client disconnected before its answer; aiohttp handles it
        raise
    except Exception:  # a bug in one handler must not reach aiohttp, which would answer in plain text
        log.exception("request_failed", method=request.method)
        return failure(Refusal(ErrorCode.INTERNAL, "internal server error"), 500)


def from_http(error: web.HTTPException) -> web.Response:
    """Return the envelope of a refusal by aiohttp itself: no such path, wrong method, body too large."""
    response = from_status(error.status, error.reason)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def from_status(status: int, reason: str) -> web.Response:
    """Return the envelope of a failure with an HTTP status."""
    code = _CODES_BY_STATUS.get(status, ErrorCode.VALIDATION if status < 500 else ErrorCode.INTERNAL)
    return failure(Refusal(code, reason.lower()), status)
