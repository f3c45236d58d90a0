"""The gateway's aiohttp application: routes, and every failure in the envelope of protocol.md."""

import time
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from gateway import metrics
from gateway.live import Live
from gateway.rest.envelope import failure
from gateway.settings import GatewaySettings
from shared import logs
from shared.errors import HTTP_STATUS, ErrorCode, Refusal, Unavailable

log = logs.get(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_CODES_BY_STATUS = {
    400: ErrorCode.VALIDATION,
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    413: ErrorCode.TOO_LARGE,
    414: ErrorCode.TOO_LARGE,
    503: ErrorCode.UNAVAILABLE,
}


def make_app(settings: GatewaySettings, live: Live, routes: Iterable[web.RouteDef]) -> web.Application:
    """The application of one gateway process."""
    app = web.Application(middlewares=[envelope], client_max_size=settings.max_message_bytes)
    app.router.add_get("/v1/live", live.handle)
    app.add_routes(routes)
    return app


@web.middleware
async def envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every failure into the failure envelope, and time REST calls."""
    started_s = time.perf_counter()
    try:
        response = await handler(request)
    except Refusal as refusal:
        response = failure(refusal, HTTP_STATUS[refusal.code])
    except Unavailable as error:
        response = failure(Refusal(ErrorCode.UNAVAILABLE, str(error), retry_after_ms=1000), 503)
    except web.HTTPException as error:
        response = _from_http(error)
    except Exception:  # the wall around one request
        log.exception("request_failed", method=request.method)
        response = failure(Refusal(ErrorCode.INTERNAL, "an error of ours; it is in the logs"), 500)
    resource = request.match_info.route.resource
    route = "none" if resource is None else resource.canonical
    if route != "/v1/live":
        metrics.REST_SECONDS.labels(f"{request.method} {route}", str(response.status)).observe(
            time.perf_counter() - started_s
        )
    return response


def _from_http(error: web.HTTPException) -> web.Response:
    """aiohttp's own refusals: no such path, wrong method, body too large."""
    code = _CODES_BY_STATUS.get(error.status, ErrorCode.VALIDATION if error.status < 500 else ErrorCode.INTERNAL)
    response = failure(Refusal(code, error.reason.lower()), error.status)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response
