"""Settings from the environment: typed, every wrong one named at once, no secret shown."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_service.settings import ChatSettings
from gateway.settings import GatewaySettings
from shared.errors import SettingsInvalid
from shared.process.settings import SECRET_FIELDS, Count, Port, Seconds, Settings, WorkerSettings, load, shown_settings

AMQP = "amqp://guest:guest@localhost:5672/"
MONGO = "mongodb://localhost:27017/"
SECRET = "0123456789abcdef0123456789abcdef"
GATEWAY = {"AMQP_URL": AMQP, "JWT_SECRET": SECRET}
CHAT = {"AMQP_URL": AMQP, "MONGODB_URI": MONGO}


def problems(kind: type[Settings], environ: dict[str, str]) -> dict[str, str]:
    """Return the problems, by variable."""
    with pytest.raises(SettingsInvalid) as caught:
        load(kind, environ)
    named = [problem.partition(":") for problem in caught.value.problems]
    assert len({name for name, _, _ in named}) == len(named), "a setting is named twice"
    return {name: reason.strip() for name, _, reason in named}


def test_gateway_defaults_match_contract() -> None:
    settings = load(GatewaySettings, GATEWAY)
    assert (settings.gateway_host, settings.gateway_port, settings.admin_port) == ("0.0.0.0", 8080, 9100)
    assert (settings.max_connections, settings.max_connections_per_user) == (10_000, 20)
    assert (settings.max_message_bytes, settings.rate_limit_messages_per_minute) == (65_536, 100)
    assert (settings.connection_timeout_s, settings.heartbeat_interval_s) == (60, 30)
    assert (settings.auth_timeout_s, settings.drain_timeout_s) == (10, 25)
    assert (settings.max_subscriptions, settings.max_symbols) == (200, 200)
    assert (settings.log_level, settings.log_format, settings.dev_mode) == ("info", "json", False)


def test_chat_service_defaults_match_contract() -> None:
    settings = load(ChatSettings, CHAT)
    assert (settings.mongodb_database, settings.admin_port) == ("realtime", 9101)
    assert settings.rate_limit_messages_per_minute == 100


def test_environment_overrides_defaults() -> None:
    settings = load(
        GatewaySettings,
        {
            **GATEWAY,
            "GATEWAY_PORT": "0",
            "AUTH_TIMEOUT_S": "2.5",
            "ALLOWED_ORIGINS": "https://a.example, https://b.example ,",
            "LOG_LEVEL": "debug",
            "DEV_MODE": "1",
            "UNRELATED": "x",
        },
    )
    assert (settings.gateway_port, settings.auth_timeout_s, settings.log_level) == (0, 2.5, "debug")
    assert settings.allowed_origins == ("https://a.example", "https://b.example")
    assert settings.dev_mode is True


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("true", True), ("YES", True), ("on", True), ("0", False), ("False", False), ("no", False)],
)
def test_boolean_accepts_usual_words(text: str, value: bool) -> None:
    assert load(GatewaySettings, {**GATEWAY, "DEV_MODE": text}).dev_mode is value


def test_empty_variable_counts_as_absent() -> None:
    empty = {name: "" for name in ("GATEWAY_PORT", "JWT_AUDIENCE", "ALLOWED_ORIGINS", "DEV_MODE", "MAX_CONNECTIONS")}
    assert load(GatewaySettings, {**GATEWAY, **empty}) == load(GatewaySettings, GATEWAY)
    assert load(GatewaySettings, {**GATEWAY, "GATEWAY_PORT": "  \n"}).gateway_port == 8080
    assert problems(GatewaySettings, {**GATEWAY, "AMQP_URL": " "}) == {"AMQP_URL": "is not set"}


def test_every_wrong_setting_is_named_at_once() -> None:
    wrong = {
        "AMQP_URL": "http://broker/",
        "GATEWAY_PORT": "65536",
        "MAX_CONNECTIONS": "many",
        "AUTH_TIMEOUT_S": "0",
        "DEV_MODE": "perhaps",
        "LOG_LEVEL": "loud",
        "JWT_SECRET": "short",
    }
    assert problems(GatewaySettings, wrong).keys() == wrong.keys()


def test_wrong_and_missing_urls_are_named_together() -> None:
    found = problems(ChatSettings, {"MONGODB_URI": "localhost:27017", "ADMIN_PORT": "-1", "MONGODB_DATABASE": "a b"})
    assert found.keys() == {"AMQP_URL", "MONGODB_URI", "ADMIN_PORT", "MONGODB_DATABASE"}
    assert found["AMQP_URL"] == "is not set"
    assert "mongodb://" in found["MONGODB_URI"]


@pytest.mark.parametrize("url", ["", "amqp", "amqp://", "http://h/", "amqp:///vhost", "amqp://[h/", "//h"])
def test_invalid_url_is_refused(url: str) -> None:
    assert problems(ChatSettings, {"AMQP_URL": url, "MONGODB_URI": MONGO}).keys() == {"AMQP_URL"}


@pytest.mark.parametrize("url", ["amqp://h", "amqps://u:p@h:1/v", "amqp://[::1]:5672/"])
def test_amqp_urls_are_checked(url: str) -> None:
    assert load(ChatSettings, {**CHAT, "AMQP_URL": url}).amqp_url == url


def test_gateway_without_keys_does_not_start() -> None:
    assert problems(GatewaySettings, {"AMQP_URL": AMQP}).keys() == {"JWT_SECRET"}
    assert load(GatewaySettings, {"AMQP_URL": AMQP, "JWT_PUBLIC_KEY_FILE": "/k.pem"}).jwt_secret is None


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("id.example/keys", {}),
        ("ftp://id.example/keys", {}),
        ("http://id.example/keys", {}),
        ("http://127.0.0.1.example/keys", {}),
        ("https://user:password@id.example/keys", {}),
        ("https://id.example/keys", {"JWT_PUBLIC_KEY_FILE": "/k.pem"}),
    ],
)
def test_key_url_must_be_https_or_local(url: str, more: dict[str, str]) -> None:
    found = problems(GatewaySettings, {"AMQP_URL": AMQP, "JWT_JWKS_URL": url, **more})
    assert found.keys() == {"JWT_JWKS_URL"}
    assert "password@" not in str(found)


@pytest.mark.parametrize("url", ["https://id.example/keys", "http://127.0.0.1:81/keys", "http://localhost/keys"])
def test_published_keys_are_enough_to_start(url: str) -> None:
    assert load(GatewaySettings, {"AMQP_URL": AMQP, "JWT_JWKS_URL": url}).jwt_jwks_url == url


@pytest.mark.parametrize(
    "proxies", ["10.0.0.0/33", "10.0.0.1/8", "lb.example", "::1/129", "10.0.0.0/8, x", "::ffff:10.0.0.0/104"]
)
def test_proxies_must_be_addresses_or_ranges(proxies: str) -> None:
    assert problems(GatewaySettings, {**GATEWAY, "TRUSTED_PROXIES": proxies}).keys() == {"TRUSTED_PROXIES"}


@pytest.mark.parametrize("mode", ["0", "1"])
def test_each_secret_has_32_bytes(mode: str) -> None:
    given = {**GATEWAY, "DEV_MODE": mode}
    assert load(GatewaySettings, {**given, "JWT_SECRET": f"{SECRET}, {SECRET}x"}).jwt_secrets == (SECRET, f"{SECRET}x")
    assert load(GatewaySettings, given).jwt_secrets == (SECRET,)
    found = problems(GatewaySettings, {**given, "JWT_SECRET": f"{SECRET},{SECRET[:-1]},{SECRET}"})
    assert found.keys() == {"JWT_SECRET"}
    assert found["JWT_SECRET"].startswith("secret 2 of 3 ")
    assert SECRET[:-1] not in str(found)
    assert problems(GatewaySettings, {**given, "JWT_SECRET": " , "}).keys() == {"JWT_SECRET"}


@pytest.mark.parametrize(
    "origins",
    ["", "*", "https://app.example", "http://localhost:8080", "https://xn--bcher-kva.example, https://b.example:8443",
     "http://[::1]:3000", "capacitor://localhost", "chrome-extension://abcdefgh", "null"],
)  # fmt: skip
def test_origins_as_browsers_send_them_are_accepted(origins: str) -> None:
    expected = tuple(part.strip() for part in origins.split(",") if part)
    assert load(GatewaySettings, {**GATEWAY, "ALLOWED_ORIGINS": origins}).allowed_origins == expected


@pytest.mark.parametrize(
    "origins",
    ["https://app.example/", "https://app.example/chat", "https://*.example", "HTTPS://App.Example", "app.example",
     "https://app.example:443", "http://app.example:80", "https://app.example:", "https://app.example:08443",
     "https://user@app.example", "https://app.example, *", "https://bücher.example", "https://", "//a.example",
     "https://app.example?", "https://app.example#top", "https://app.example:port", "https://app.example:99999"],
)  # fmt: skip
def test_origin_that_no_browser_sends_is_named(origins: str) -> None:
    assert problems(GatewaySettings, {**GATEWAY, "ALLOWED_ORIGINS": origins}).keys() == {"ALLOWED_ORIGINS"}


class _Odd(Settings, frozen=True, kw_only=True):
    jwt_secret: Annotated[int, msgspec.Meta(ge=10)]
    plain: Annotated[int, msgspec.Meta(ge=10)]


def test_wrong_value_is_shown_unless_secret() -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load(_Odd, {"AMQP_URL": AMQP, "JWT_SECRET": "7", "PLAIN": "8"})
    text = str(caught.value)
    assert "PLAIN" in text
    assert "(got '8')" in text
    assert "JWT_SECRET" in text
    assert "'7'" not in text


def test_shown_settings_are_texts_without_secrets() -> None:
    collector = "http://user:pass@collector:4318/?key=secret"
    settings = load(
        ChatSettings,
        {
            "AMQP_URL": "amqp://a:b@c/",
            "MONGODB_URI": "mongodb://d",
            "RATE_CHANGES_PER_MINUTE": "7",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        },
    )
    shown = shown_settings(settings)
    assert shown.keys().isdisjoint({"AMQP_URL", "MONGODB_URI"})
    assert (shown["RATE_CHANGES_PER_MINUTE"], shown["LOG_LEVEL"]) == ("7", "info")
    assert not [value for value in shown.values() if "pass" in value or "secret" in value]


def test_secret_settings_are_known() -> None:
    assert {"jwt_secret", "amqp_url", "mongodb_uri"} <= SECRET_FIELDS


texts = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=40)
secrets = texts.map("s3cr3t".__add__)  # Hypothesis also tries words of the code, such as names of settings


@given(secrets, st.sampled_from(["AMQP_URL", "MONGODB_URI", "JWT_SECRET"]))
def test_no_error_shows_secret(secret: str, name: str) -> None:
    for kind in (GatewaySettings, ChatSettings):
        try:
            load(kind, {**CHAT, "GATEWAY_PORT": "x", "ADMIN_PORT": "x", name: f"ftp://u:{secret}@h/"})
        except SettingsInvalid as invalid:
            assert secret not in str(invalid)


@pytest.mark.parametrize(
    ("kind", "inside", "outside"),
    [
        (Port, ["0", "65535"], ["-1", "65536", "80.5", "http"]),
        (Seconds, ["0.001", "86400"], ["0", "-1", "86401", "nan", "inf", "soon"]),
        (Count, ["1", "1000000000"], ["0", "-1", "1000000001", "1.5"]),
    ],
)
def test_ranges_are_checked(kind: Any, inside: list[str], outside: list[str]) -> None:
    one: Any = msgspec.defstruct("One", [("value", kind)], bases=(Settings,), frozen=True, kw_only=True)
    for text in inside:
        assert load(one, {"AMQP_URL": AMQP, "VALUE": text}).value == float(text)
    for text in outside:
        assert problems(one, {"AMQP_URL": AMQP, "VALUE": text}).keys() == {"VALUE"}


@given(
    st.dictionaries(
        st.sampled_from([field.name.upper() for field in msgspec.structs.fields(GatewaySettings)]), st.text()
    )
)
def test_any_environment_is_settings_or_named_problems(environ: dict[str, str]) -> None:
    try:
        settings = load(GatewaySettings, environ)
    except SettingsInvalid as invalid:
        names = [field.name.upper() for field in msgspec.structs.fields(GatewaySettings)]
        assert all(problem.partition(":")[0] in names for problem in invalid.problems)
    else:
        assert settings.amqp_url.startswith("amqp")


def test_workers_require_database_url() -> None:
    assert problems(WorkerSettings, {"AMQP_URL": AMQP}) == {"MONGODB_URI": "is not set"}


def test_secret_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "amqp_url").write_text(f"{AMQP}\n")
    given = {"AMQP_URL_FILE": str(tmp_path / "amqp_url"), "MONGODB_URI": MONGO}
    assert load(ChatSettings, given).amqp_url == AMQP


def test_secret_twice_or_from_no_file_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for more in ({"AMQP_URL": AMQP, "AMQP_URL_FILE": str(empty)}, {"AMQP_URL_FILE": str(empty)}):
        assert problems(ChatSettings, {"MONGODB_URI": MONGO, **more}).keys() == {"AMQP_URL"}
    missing = problems(ChatSettings, {"MONGODB_URI": MONGO, "AMQP_URL_FILE": str(tmp_path / "missing")})
    assert missing == {"AMQP_URL": "cannot read AMQP_URL_FILE: No such file or directory"}


def test_only_secrets_come_from_files(tmp_path: Path) -> None:
    file = tmp_path / "level"
    file.write_text("debug")
    assert load(ChatSettings, {**CHAT, "LOG_LEVEL_FILE": str(file)}).log_level == "info"
