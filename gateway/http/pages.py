"""The web pages and their files, and development tokens. All of it in DEV_MODE alone; otherwise none of it exists."""

import hashlib
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from gateway.http import dev_tokens
from gateway.http.dev_tokens import PersonName
from gateway.rest.envelope import In, body_of, success
from gateway.settings import GatewaySettings
from shared.telemetry import logs
from shared.times import now_ms

log = logs.get(__name__)

PAGE_FILES = Path(__file__).parents[1] / "web"
CLIENT_FILES = Path(__file__).parents[1] / "client" / "javascript"  # the page imports the client like any application
PAGES = {"/": "index.html", "/docs": "docs.html"}  # path and file; scripts and styles stand beside it, under /web/
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_FILE_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z]+)+")

# No script, style or frame but our own files; no string becomes HTML (Trusted Types with no policy). Pictures may come
# from elsewhere: avatars do. Sources: https://www.w3.org/TR/CSP3/, https://www.w3.org/TR/trusted-types/
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
    "Cache-Control": "no-cache",  # kept, but asked for again with its ETag: an edited file is seen at the next reload
}


class NewToken(In, frozen=True):
    """Whose token."""

    name: PersonName


class Pages:
    """The handlers of DEV_MODE."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings

    def routes(self) -> list[web.RouteDef]:
        """None without DEV_MODE; no tokens without a secret to sign them with."""
        if not self._settings.dev_mode:
            return []
        log.warning("dev_mode_is_on", effect="pages are served, and whoever asks gets a token for any name")
        routes = [web.get(path, _page(name)) for path, name in PAGES.items()]
        routes.append(web.get("/web/{name}", self.file))
        if dev_tokens.can_sign(self._settings):
            routes.append(web.post("/dev/token", self.token))
        return routes

    async def file(self, request: web.Request) -> web.Response:
        """One file of the pages. 404 for whatever is none."""
        return _answer(request, request.match_info["name"])

    async def token(self, request: web.Request) -> web.Response:
        """A token for a name; the same name is the same user."""
        body = await body_of(request, NewToken)
        response = success(dev_tokens.sign(body.name, self._settings, now_ms()), status=201)
        response.headers.update(HEADERS | {"Cache-Control": "no-store"})
        return response


def _page(name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def page(request: web.Request) -> web.Response:
        return _answer(request, name)

    return page


def _answer(request: web.Request, name: str) -> web.Response:
    """The file, or 304 where the browser has it. Names have no slash and no leading dot, so nothing else is reached."""
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
