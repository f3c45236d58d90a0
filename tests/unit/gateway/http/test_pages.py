"""The pages and tokens of DEV_MODE, which do not exist otherwise."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from gateway.auth.token_verifier import TokenVerifier
from gateway.http.app import envelope
from gateway.http.dev_tokens import user_id_of
from gateway.http.pages import CLIENT_FILES, PAGE_FILES, PAGES, TYPES, Pages
from gateway.settings import GatewaySettings
from tests.support.tokens import SECRET

Client = TestClient[web.Request, web.Application]
Serve = Callable[..., Awaitable[Client]]


def settings(**more: Any) -> GatewaySettings:
    given: dict[str, Any] = {"jwt_secret": SECRET, "dev_mode": True} | more
    return GatewaySettings(amqp_url="amqp://nobody", **given)


@pytest.fixture
async def serve(aiohttp_client: Callable[[web.Application], Awaitable[Client]]) -> Serve:
    async def served(**more: Any) -> Client:
        app = web.Application(middlewares=[envelope])
        app.add_routes(Pages(settings(**more)).routes())
        return await aiohttp_client(app)

    return served


# Files --------------------------------------------------------------------------------------------------------------


async def test_files_are_served_with_type_and_security_headers(serve: Serve) -> None:
    client = await serve()
    names = sorted(
        path.name
        for folder in (PAGE_FILES, CLIENT_FILES)
        for path in folder.iterdir()
        if path.suffix in TYPES and ".d." not in path.name
    )
    assert set(PAGES.values()) <= set(names)
    for path in [*PAGES, *(f"/web/{name}" for name in names)]:
        async with client.get(path) as response:
            assert response.status == 200, path
            assert response.content_type == TYPES[Path(PAGES.get(path, path)).suffix]
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy and "*" not in policy
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Referrer-Policy"] == "no-referrer"
            assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert "camera=()" in response.headers["Permissions-Policy"]


async def test_cached_file_is_not_sent_again(serve: Serve) -> None:
    client = await serve()
    async with client.get("/") as first:
        tag = first.headers["ETag"]
        assert first.headers["Cache-Control"] == "no-cache"
    async with client.get("/", headers={"If-None-Match": tag}) as again:
        assert (again.status, again.headers["ETag"], await again.read()) == (304, tag, b"")
        assert "Content-Security-Policy" in again.headers
    async with client.get("/", headers={"If-None-Match": '"another"'}) as changed:
        assert changed.status == 200


@pytest.mark.parametrize(
    "path",
    [
        *("/web/..%2fpages.py", "/web/%2e%2e%2fpages.py", "/web/%00.js", "/web/main.js%00", "/web/%2e%2e/pages.py"),
        *("/web//etc/passwd", "/web/%2fetc%2fpasswd", "/web/.hidden.js", "/web/no-such.js", "/web/MAIN.JS", "/web/"),
    ],
)
async def test_only_page_files_are_reachable(serve: Serve, path: str) -> None:
    client = await serve()
    async with client.get(path) as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "NOT_FOUND"


def test_pages_have_no_inline_code_and_no_foreign_address() -> None:
    """The policy blocks them, so no page may depend on them."""
    for name in PAGES.values():
        text = (PAGE_FILES / name).read_text(encoding="utf-8")
        assert not re.search(
            r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:|https?://(?!www\.w3\.org)", text
        )


def test_no_module_turns_text_into_html() -> None:
    """Trusted Types block it in the browser; this test finds it earlier."""
    for path in [*PAGE_FILES.glob("*.js"), *CLIENT_FILES.glob("*.js")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path
        )


# Tokens -------------------------------------------------------------------------------------------------------------


async def test_name_gets_a_token_that_the_gateway_accepts(serve: Serve) -> None:
    wanted = {"jwt_issuer": "https://issuer.example", "jwt_audience": "realtime"}
    client = await serve(**wanted)
    async with client.post("/dev/token", json={"name": "  Ada   King Lovelace "}) as response:
        body = await response.json()
        assert (response.status, response.headers["Cache-Control"]) == (201, "no-store")
        assert "Content-Security-Policy" in response.headers
    issued = body["data"]
    identity = TokenVerifier(settings(**wanted)).verify(issued["token"])
    assert identity.user_id == issued["userId"] == "user_ada_king_lovelace"
    assert (identity.caller.profile.first_name, identity.caller.profile.last_name) == ("Ada", "King Lovelace")
    assert not identity.caller.is_admin


async def test_another_machine_gets_no_token(serve: Serve) -> None:
    client = await serve()
    for headers in ({"X-Forwarded-For": "192.0.2.7"}, {"Host": "rebound.example"}):
        async with client.post("/dev/token", json={"name": "Ada"}, headers=headers) as response:
            assert response.status == 403
            assert (await response.json())["error"]["code"] == "FORBIDDEN"


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "  "}, {"name": 7}, {"name": "x" * 81}])
async def test_invalid_name_gets_no_token(serve: Serve, body: Any) -> None:
    client = await serve()
    async with client.post("/dev/token", json=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "VALIDATION"


@pytest.mark.parametrize(
    ("name", "user_id"),
    [
        ("Ada", "user_ada"),
        ("  ADA ", "user_ada"),
        ("Ada Lovelace", "user_ada_lovelace"),
    ],
)
def test_plain_names_give_readable_ids(name: str, user_id: str) -> None:
    assert user_id_of(name) == user_id


def test_different_names_give_different_ids() -> None:
    names = ["Zoe", "Zoë", "Zo-e", "Zo e", "李雷", "韩梅梅", "<b>Zoe</b>", "a" * 79, "a" * 80, "🙂", "_"]
    ids = {user_id_of(name) for name in names}
    assert len(ids) == len(names)
    assert all(re.fullmatch(r"user_[a-z0-9_]{1,60}", id_) for id_ in ids)


# Outside of DEV_MODE ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/web/main.js"), ("POST", "/dev/token")])
async def test_no_routes_without_dev_mode(serve: Serve, method: str, path: str) -> None:
    client = await serve(dev_mode=False)
    async with client.request(method, path, json={"name": "Ada"} if method == "POST" else None) as response:
        assert response.status == 404


@pytest.mark.parametrize(
    "more", [{"jwt_secret": None, "jwt_public_key_file": "key.pem"}, {"jwt_algorithms": ("RS256",)}]
)
async def test_no_tokens_without_a_secret(serve: Serve, more: dict[str, Any]) -> None:
    client = await serve(**more)
    async with client.post("/dev/token", json={"name": "Ada"}) as response:
        assert response.status == 404
    async with client.get("/") as page:
        assert page.status == 200
