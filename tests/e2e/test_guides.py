"""The README and the guides: their snippets run against the whole system, and all names in them exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from chat_service.settings import ChatSettings
from deploy.local.settings import PROJECT
from gateway.settings import GatewaySettings
from market_feed.settings import MarketSettings
from notifier.settings import NotifierSettings
from shared.process.settings import Settings, WorkerSettings
from tests.support.local_system import LocalSystem
from tests.support.people import Person
from tests.support.snippets import snippets
from tests.support.tokens import SECRET
from tests.support.waiting import until_async

README = PROJECT / "README.md"
EVENTS_GUIDE = PROJECT / "docs" / "internal-events.md"
GUIDES = [README, *sorted((PROJECT / "docs").glob("*.md"))]
TIMEOUT_S = 120.0
DEAD_LIST = ".venv/bin/python -m gateway.cli"


def in_shell(system: LocalSystem, script: str, directory: Path) -> str:
    """Return the output of a script, every line of which must succeed."""
    url = system.entries()["GATEWAY_URL"]
    script = script.replace("http://127.0.0.1:8080", url).replace("/tmp/", f"{directory}/")
    script = script.replace(".venv/bin/python", sys.executable)
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "HOME": str(directory), "LOCAL_DIR": str(system.directory)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_readme_tour_works(system: LocalSystem, tmp_path: Path) -> None:
    steps = [snippet.text for snippet in snippets(README, "sh") if "tour" in snippet.words]
    assert len(steps) == 6
    out = in_shell(system, "\n".join(steps), tmp_path)
    assert out.count('"message":"EUR/USD looking bullish on the 4H chart"') == 3  # once each: created, repeated, listed
    for expected in (
        '"symbol":"XAU/USD"',
        '"interval":"1m"',
        '"status":"active"',
        "EUR/USD Trading Room",
    ):
        assert expected in out, expected
    assert len(re.findall(r"^\S+Z  EUR/USD  ", out, re.MULTILINE)) >= 3
    # The last step's events may arrive a moment later.
    john = Person(system.entries()["GATEWAY_URL"], "user_456", SECRET, {})

    async def inbox() -> list[str]:
        return [notification["title"] for notification in await john.data("GET", "/v1/notifications")]

    async def dead() -> str:
        return in_shell(system, steps[-1].splitlines()[-1].replace("realtime", DEAD_LIST), tmp_path)

    titles = await until_async(inbox, lambda titles: len(titles) >= 2, 20.0)
    assert set(titles) == {"New Comment", "EUR/USD above 0.5"}
    await until_async(dead, lambda shown: "audience: is missing, and quiz.opened has no default" in shown, 20.0)


async def test_events_guide_in_python_and_shell_notifies_user(system: LocalSystem, tmp_path: Path) -> None:
    person = Person(system.entries()["GATEWAY_URL"], "user_456", SECRET, {})
    (program,) = [snippet for snippet in snippets(EVENTS_GUIDE, "python") if "publish" in snippet.words]
    (tmp_path / "publish.py").write_text(program.text)
    async with await person.live() as client:
        await client.ask("subscribe", channel="notifications")
        in_shell(system, f"AMQP_URL={system.entries()['AMQP_URL']} .venv/bin/python /tmp/publish.py", tmp_path)
        assert (await client.data("notification:new"))["title"] == "Hello from Python"
        commands = [snippet.text for snippet in snippets(EVENTS_GUIDE, "sh") if "shell" in snippet.words]
        assert len(commands) == 2
        in_shell(system, "\n".join(commands), tmp_path)
        assert (await client.data("notification:new"))["title"] == "Hello from the shell"


# References --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_make_targets_in_guides_exist(guide: Path) -> None:
    text = guide.read_text(encoding="utf-8")
    named = re.findall(
        r"`make ([a-z][a-z0-9-]*)|^ +make ([a-z][a-z0-9-]*)|\$\(make -s ([a-z0-9-]+)", text, re.MULTILINE
    )
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {name for names in named for name in names if name} - targets == set()


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_links_in_guides_resolve(guide: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", guide.read_text(encoding="utf-8"))
    broken = [target for target in targets if "://" not in target and not (guide.parent / target).exists()]
    assert broken == []


# Settings ----------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, type[Settings]] = {
    "Every service": Settings,
    "chat_service, market_feed and notifier": WorkerSettings,
    "gateway": GatewaySettings,
    "chat_service": ChatSettings,
    "market_feed": MarketSettings,
    "notifier": NotifierSettings,
}
SHARED = {
    Settings: set[str](),
    WorkerSettings: {field.name for field in msgspec.structs.fields(Settings)},
    GatewaySettings: {field.name for field in msgspec.structs.fields(Settings)},
}


def default_of(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "must be set"
    match field.default:
        case None | () | "":
            return ""
        case bool() as flag:
            return str(int(flag))
        case tuple() as words:
            return ",".join(map(str, words))
        case float() as number:
            return f"{number:g}"
        case other:
            return str(other)


@pytest.mark.parametrize("section", SECTIONS)
def test_settings_page_lists_every_setting_and_default(section: str) -> None:
    page = (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8")
    text = page.partition(f"## {section}\n")[2].partition("\n## ")[0]
    shown = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) ?\|", text, re.MULTILINE))
    kind = SECTIONS[section]
    elsewhere = SHARED.get(kind, {field.name for field in msgspec.structs.fields(WorkerSettings)})
    fields = [field for field in msgspec.structs.fields(kind) if field.name not in elsewhere]
    assert shown == {field.name.upper(): default_of(field) for field in fields}


def test_readme_limits_match_defaults() -> None:
    kinds: tuple[type[Settings], ...] = (ChatSettings, GatewaySettings)
    fields = {field.name.upper(): field.default for kind in kinds for field in msgspec.structs.fields(kind)}
    rows = re.findall(
        r"^\| [^|]+ \| ([^|]+) \| ((?:`[A-Z_]+`(?:, )?)+) \|$", README.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) == 14
    for shown, names in rows:
        values = [fields[name] for name in re.findall(r"[A-Z_]+", names)]
        numbers = [int(number) for number in re.findall(r"\d+", shown.replace(",000", "000"))]
        assert [number * 1024 if "KB" in shown else number for number in numbers] == values, names
