"""Tokens for the local system."""

import time
from pathlib import Path

import jwt
import pytest

from deploy.local.private_file import write_private
from deploy.local.run_file import RUN_FILE
from deploy.local.token import InvalidRequest, find_signing_rules, keep_secret, read_request
from shared.tokens import TokenRequest, sign

SECRET = "s" * 48


def test_token_carries_exactly_the_given_claims() -> None:
    now_s = int(time.time())
    token = sign(TokenRequest("user_456", first_name="John", role="admin", ttl_s=60), SECRET, {}, now_s)
    assert jwt.decode(token, SECRET, algorithms=["HS256"]) == {
        "sub": "user_456",
        "firstName": "John",
        "role": "admin",
        "iat": now_s,
        "exp": now_s + 60,
    }


def test_token_includes_issuer_and_audience() -> None:
    rules = {"JWT_ISSUER": "accounts", "JWT_AUDIENCE": "realtime"}
    token = sign(TokenRequest("user_456"), SECRET, rules, int(time.time()))
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], issuer="accounts", audience="realtime")
    assert claims["sub"] == "user_456"


def test_request_is_read_from_makefile_variables() -> None:
    request = read_request({"TOKEN_USER": "user_1", "TOKEN_COMMUNITIES": "a, b%2Cc,", "TOKEN_TTL": "5", "USER": "root"})
    assert request == TokenRequest("user_1", communities=("a", "b,c"), ttl_s=5)


@pytest.mark.parametrize("environment", [{}, {"USER": "root"}, {"TOKEN_USER": " "}])
def test_token_without_user_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="USER=user_456"):
        read_request(environment)


@pytest.mark.parametrize("ttl", ["0", "-1", "soon"])
def test_invalid_ttl_is_refused(ttl: str) -> None:
    with pytest.raises(InvalidRequest, match="TTL"):
        read_request({"TOKEN_USER": "user_1", "TOKEN_TTL": ttl})


def test_secret_precedence_is_environment_then_running_then_kept(tmp_path: Path) -> None:
    keep_secret(tmp_path, "kept")
    assert find_signing_rules({}, tmp_path)["JWT_SECRET"] == "kept"
    write_private(tmp_path / RUN_FILE, "JWT_SECRET=running=1\nJWT_ISSUER=accounts\n")
    assert find_signing_rules({}, tmp_path) == {"JWT_SECRET": "running=1", "JWT_ISSUER": "accounts"}
    assert find_signing_rules({"JWT_SECRET": "given"}, tmp_path)["JWT_SECRET"] == "given"


def test_missing_secret_suggests_to_run_first(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="make run"):
        find_signing_rules({}, tmp_path)


def test_system_with_public_keys_ignores_kept_secret(tmp_path: Path) -> None:
    keep_secret(tmp_path, "kept")
    write_private(tmp_path / RUN_FILE, "AMQP_URL=amqp://here/\n")
    with pytest.raises(InvalidRequest, match="public key"):
        find_signing_rules({}, tmp_path)


def test_kept_secret_is_stable_and_private(tmp_path: Path) -> None:
    assert keep_secret(tmp_path, "first") == "first"
    assert keep_secret(tmp_path, "second") == "first"
    assert (tmp_path / "jwt_secret").stat().st_mode & 0o777 == 0o600
