"""The web pages, their files, and development tokens: routes that exist only in DEV_MODE."""

import hashlib
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from gateway.admission.addresses import is_loopback, is_loopback_host
from gateway.http import dev_tokens
from gateway.http.dev_tokens import PersonName
from gateway.rest.envelope import RequestStruct, body_of, success
from gateway.settings import GatewaySettings
from shared.errors import ErrorCode, Refusal
from shared.telemetry import logs
from shared.times import now_ms

log = logs.get(__name__)

PAGE_FILES = Path(__file__).parents[1] / "web"
CLIENT_FILES = Path(__file__).parents[1] / "client" / "javascript"  # the published client
PAGES = {"/": "index.html", "/docs": "docs.html"}  # path and file; scripts and styles are served under /web/
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_FILE_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z]+)+")

# Only our own files may be scripts, styles or frames, and no string becomes HTML (Trusted Types without a policy).
# Images may be external: avatars are. Sources: https://www.w3.org/TR/CSP3/, https://www.w3.org/TR/trusted-types/
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' https:",
        "connect-src 'self'",  # the page's own WebSocket too: CSP3, 6.7.2.8, lets http match ws
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # cached, but revalidated by ETag: a reload shows an edited file
}


class NewToken(RequestStruct, frozen=True):
    """The body of POST /dev/token: the name of the user."""

    name: PersonName


class Pages:
    """The handlers of DEV_MODE."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings

    def routes(self) -> list[web.RouteDef]:
        """Return the routes: none without DEV_MODE, and none for tokens without a secret to sign them."""
        if not self._settings.dev_mode:
            return []
        log.warning("dev_mode_is_on", effect="pages are served, and clients on this machine get a token for any name")
        routes = [web.get(path, _page(name)) for path, name in PAGES.items()]
        routes.append(web.get("/web/{name}", self.file))
        if dev_tokens.can_sign(self._settings):
            routes.append(web.post("/dev/token", self.token))
        return routes

    async def file(self, request: web.Request) -> web.Response:
        """Return one file of the pages; 404 for any other name."""
        return _answer(request, request.match_info["name"])

    async def token(self, request: web.Request) -> web.Response:
        """Return a token for a name, to a client on this machine. The same name always gives the same user."""
        forwarded = request.headers.getall("X-Forwarded-For", [])
        if not (is_loopback(request.remote or "", forwarded) and is_loopback_host(request.host)):
            raise Refusal(ErrorCode.FORBIDDEN, "development tokens are only for clients on the gateway's own machine")
        body = await body_of(request, NewToken)
        response = success(dev_tokens.sign(body.name, self._settings, now_ms()), status=201)
        response.headers.update(HEADERS | {"Cache-Control": "no-store"})
        return response


def _page(name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def page(request: web.Request) -> web.Response:
        return _answer(request, name)

    return page


def _answer(request: web.Request, name: str) -> web.Response:
    """Return a file, or 304 if the browser has it. A name has no slash and no leading dot."""
    kind = TYPES.get(Path(name).suffix)
    if kind is None or not _FILE_NAME.fullmatch(name):
        raise web.HTTPNotFound
    path = next((folder / name for folder in (PAGE_FILES, CLIENT_FILES) if (folder / name).is_file()), None)
    if path is None:
        raise web.HTTPNotFound
    content = path.read_bytes()
    tag = hashlib.sha256(content).hexdigest()[:32]
    if any(known.value == tag for known in request.if_none_match or ()):
        response = web.Response(status=304)
    else:
        response = web.Response(body=content, content_type=kind, charset=None if kind == "image/svg+xml" else "utf-8")
    response.etag = tag
    response.headers.update(HEADERS)
    return response
