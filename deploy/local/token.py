"""Token requests for `make token`, and the secret of the local system. Signing: `shared.tokens`."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from deploy.local.private_file import write_private
from deploy.local.run_file import read_run_file
from shared.tokens import DEFAULT_TTL_S, TokenRequest

_SECRET_FILE = "jwt_secret"  # noqa: S105 - a file name


class InvalidRequest(Exception):
    """The token request is invalid, or no token can be signed here."""


def read_request(environment: Mapping[str, str]) -> TokenRequest:
    """Read the TOKEN_ variables that the Makefile sets."""
    user_id = environment.get("TOKEN_USER", "").strip()
    if not user_id:
        raise InvalidRequest("USER is missing: make token USER=user_456 [ROLE=admin] [FIRST=John LAST=Doe]")
    ttl = environment.get("TOKEN_TTL") or str(DEFAULT_TTL_S)
    if not ttl.isdecimal() or int(ttl) == 0:
        raise InvalidRequest(f"TTL={ttl} is not a number of seconds")
    communities = environment.get("TOKEN_COMMUNITIES", "").split(",")
    return TokenRequest(
        user_id=user_id,
        first_name=environment.get("TOKEN_FIRST", ""),
        last_name=environment.get("TOKEN_LAST", ""),
        avatar=environment.get("TOKEN_AVATAR", ""),
        role=environment.get("TOKEN_ROLE", ""),
        communities=tuple(unquote(name.strip()) for name in communities if name.strip()),
        ttl_s=int(ttl),
    )


def find_signing_rules(environment: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Return JWT_SECRET, and JWT_ISSUER and JWT_AUDIENCE if set, from the environment or the running system.

    Raises InvalidRequest if there is no secret: no run so far, or one that verifies tokens with a public key.
    """
    try:
        running = read_run_file(directory)
    except PermissionError as error:
        raise InvalidRequest(f"{error.filename} belongs to another user: set JWT_SECRET") from error
    given = {key: environment[key] for key in ("JWT_SECRET", "JWT_ISSUER", "JWT_AUDIENCE") if environment.get(key)}
    rules = running | given
    if "JWT_SECRET" not in rules and running:
        raise InvalidRequest("the running system verifies tokens with a public key; sign them with the private key")
    if "JWT_SECRET" not in rules:
        try:
            rules["JWT_SECRET"] = (directory / _SECRET_FILE).read_text().strip()
        except FileNotFoundError as error:
            raise InvalidRequest("JWT_SECRET does not exist yet: run `make run` first") from error
    return rules


def keep_secret(directory: Path, new_secret: str) -> str:
    """Return the secret stored in `directory`; without one, store and return `new_secret`."""
    path = directory / _SECRET_FILE
    try:
        kept = path.read_text().strip()
    except FileNotFoundError:
        kept = ""
    if not kept:
        write_private(path, new_secret + "\n")
    return kept or new_secret
