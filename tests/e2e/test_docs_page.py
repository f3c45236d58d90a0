"""`/docs` in DEV_MODE: the API documents for readers, in a real browser if installed."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import aiohttp
import pytest

from tests.support.documents import live, rest
from tests.support.local_system import LocalSystem

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--virtual-time-budget=15000", "--dump-dom"),
)
TIMEOUT_S = 90.0


async def fetch(url: str) -> tuple[aiohttp.ClientResponse, str]:
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return response, await response.text()


@pytest.mark.parametrize(("name", "document"), [("openapi.json", rest()), ("asyncapi.json", live())])
async def test_documents_are_public_to_any_origin(system: LocalSystem, name: str, document: object) -> None:
    response, text = await fetch(f"{system.entries()['GATEWAY_URL']}/v1/{name}")
    assert (response.status, response.content_type) == (200, "application/json")
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert json.loads(text) == document


async def test_page_and_files_have_security_headers(system: LocalSystem) -> None:
    url = system.entries()["GATEWAY_URL"]
    page, text = await fetch(f"{url}/docs")
    files = re.findall(r'(?:src|href)="(/web/[^"]+)"', text)
    assert len(files) == 4
    for response in [page, *[(await fetch(f"{url}{file}"))[0] for file in files]]:
        assert response.status == 200
        assert "script-src 'self'" in response.headers["Content-Security-Policy"]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not on this machine")
def test_browser_shows_every_call_and_frame(system: LocalSystem, tmp_path: Path) -> None:
    command = ["chromium", *FLAGS, f"--user-data-dir={tmp_path}", f"{system.entries()['GATEWAY_URL']}/docs"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S).stdout
    titles = set(re.findall(r'<h3 id="[^"]+">([^<]+)</h3>', shown))
    calls = {f"{method.upper()} {path}" for path, item in rest()["paths"].items() for method in item}
    frames = {message["name"] for message in live()["components"]["messages"].values()}
    assert calls | frames == titles
