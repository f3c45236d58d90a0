"""Entry point: `python -m deploy.local run` runs the system here, `python -m deploy.local token` prints a token.

`run` exits with 0 after an orderly stop, with 1 if a program did not become ready, with 2 if the set-up failed.
"""

import asyncio
import os
import resource
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace

from deploy.local.claim import CannotClaim, claim_directory, claim_port
from deploy.local.console import Console, standard_console
from deploy.local.leftovers import kill_marked, start_guard
from deploy.local.plan import Plan, make_plan
from deploy.local.ports import LOOPBACK
from deploy.local.run_file import RUN_FILE, RunFile, gateway_authority
from deploy.local.settings import InvalidSettings, LocalSettings, read_settings
from deploy.local.supervisor import StartFailure, Supervisor
from deploy.local.token import InvalidRequest, find_signing_rules, keep_secret, read_request
from shared.tokens import sign

START_TIMEOUT_S = 60.0
OPEN_FILES = 65_536
SECRET_BYTES = 48


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Run a command and return the exit code. A failure prints one line to standard error."""
    try:
        match arguments:
            case ["run"]:
                return run(read_settings(environment), environment)
            case ["token"]:
                return token(read_settings(environment), environment)
    except (InvalidSettings, InvalidRequest, CannotClaim) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(__doc__, file=sys.stderr)
    return 2


def token(settings: LocalSettings, environment: Mapping[str, str]) -> int:
    """Print a token for the system of this directory."""
    request = read_request(environment)
    rules = find_signing_rules(environment, settings.directory)
    print(sign(request, rules["JWT_SECRET"], rules, int(time.time())))
    return 0


def run(settings: LocalSettings, environment: Mapping[str, str]) -> int:
    """Run the system until interrupted and return the exit code."""
    claim_directory(settings.directory)
    mark = str(settings.directory)
    leftovers = kill_marked(mark)
    asked = settings.gateway_port
    try:
        port_claim = claim_port(settings.gateway_host, asked)
    except CannotClaim as error:
        if not settings.any_gateway_port or not error.is_taken:
            raise
        port_claim = claim_port(settings.gateway_host, 0)
    settings = replace(settings, gateway_port=port_claim.getsockname()[1])
    raise_open_file_limit()
    plan = make_plan(settings, environment, jwt_secret(settings, environment))
    run_file = RunFile(settings, plan, environment)
    guard = start_guard(mark)
    console = standard_console(plan.names, bool(environment.get("NO_COLOR")))
    if asked not in (0, settings.gateway_port):
        console.say(
            f"port {asked} is in use: the gateways listen on {settings.gateway_port} (set GATEWAY_PORT to choose)"
        )
    if leftovers:
        console.say(f"ended {len(leftovers)} processes left over from an earlier run")
    try:
        return asyncio.run(supervise(settings, plan, run_file, console))
    finally:
        guard.communicate()  # the guard kills remaining processes, then exits
        run_file.remove()
        console.close()


async def supervise(settings: LocalSettings, plan: Plan, run_file: RunFile, console: Console) -> int:
    """Start the plan's programs, keep them running until a signal arrives, stop them, and return the exit code."""
    supervisor = Supervisor(plan.stages, str(settings.directory), console, run_file.note_start)
    loop = asyncio.get_running_loop()
    began_s = loop.time()

    def interrupt() -> None:
        orderly = supervisor.interrupt()
        console.say("stopping; interrupt again to kill everything" if orderly else "killing everything")

    def announce() -> None:
        run_file.announce()
        console.say(welcome(settings, plan, loop.time() - began_s))

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Leave SIGHUP ignored under nohup. Handle SIGINT even if a shell without job control ignores it (`make run &`).
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, interrupt)
    console.say(f"starting {', '.join(plan.names)}")
    try:
        await supervisor.run(START_TIMEOUT_S, announce)
    except StartFailure as failure:
        console.say(f"\nstopped because:\n{failure}")
        return 1
    console.say("stopped")
    return 0


def jwt_secret(settings: LocalSettings, environment: Mapping[str, str]) -> str | None:
    """Return the token secret of the environment, None if that configures public keys, otherwise the stored secret."""
    if environment.get("JWT_SECRET"):
        return environment["JWT_SECRET"]
    if environment.get("JWT_PUBLIC_KEY_FILE") or environment.get("JWT_JWKS_URL"):
        return None
    return keep_secret(settings.directory, secrets.token_urlsafe(SECRET_BYTES))


def raise_open_file_limit() -> None:
    """Raise the limit of open files, also for children, up to a bound: Erlang allocates memory per possible file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def welcome(settings: LocalSettings, plan: Plan, start_duration_s: float) -> str:
    """Return the summary that is printed once everything is ready."""
    authority = gateway_authority(settings)
    has_pages = plan.shared_environment["DEV_MODE"] != "0"
    width = max(map(len, plan.admin_ports), default=0)
    metrics = [f"    {name:<{width}}  http://{LOOPBACK}:{port}/metrics" for name, port in plan.admin_ports.items()]
    lines = [
        "",
        f"ready after {start_duration_s:.1f} s",
        *([f"  page       http://{authority}/"] if has_pages else []),
        f"  REST       http://{authority}/v1",
        f"  WebSocket  ws://{authority}/v1/live",
        "  token      make token USER=user_456",
        *(["             POST /dev/token gives clients on this machine a token for any name"] if has_pages else []),
        f"  settings   {settings.directory / RUN_FILE}",
        "  metrics",
        *metrics,
        "  Ctrl-C stops everything",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
