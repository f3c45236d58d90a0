"""Base images made from a Debian root, for a private engine that reaches no registry.

Such an image has Debian's Python, and the certificates and pip settings of this machine. It serves trials and tests: it
must not be published.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.bootstrap import say, stop
from deploy.container.engine import Engine

ROOT = "debian-root:bookworm"
INCLUDED = "python3,python3-venv,python3-pip,ca-certificates"
PULL_TIMEOUT_S = 60.0
MAKE_TIMEOUT_S = 900.0
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "proxy")

_BASE = f"""\
FROM {ROOT}
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin LANG=C.UTF-8
RUN ln -s /usr/bin/python3 /usr/local/bin/python
RUN printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
COPY certificates {CERTIFICATES}
COPY pip.conf /etc/pip.conf
"""


def provide(engine: Engine, name: str) -> None:
    """Pull the base image `name` into a private engine, or make it where no registry is reachable."""
    if engine.directory is None or engine.has_image(name) or _pulled(engine, name):
        return
    say(f"no registry is reachable: {name} is made from a Debian root; do not publish what is built on it")
    _provide_root(engine)
    with tempfile.TemporaryDirectory() as context:
        _write_context(Path(context))
        engine.run_or_stop(f"building {name}", "build", "--network", "host", "--tag", name, context)


def _pulled(engine: Engine, name: str) -> bool:
    try:
        return engine.attempt("pull", name, timeout_s=PULL_TIMEOUT_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _provide_root(engine: Engine) -> None:
    if engine.has_image(ROOT):
        return
    say("making a Debian root, a minute or two")
    with tempfile.TemporaryDirectory() as directory:
        archive = Path(directory) / "root.tar"
        made = subprocess.run(  # noqa: S603
            ["/usr/bin/mmdebstrap", "--quiet", "--variant=apt", f"--include={INCLUDED}", "bookworm", str(archive)],
            capture_output=True,
            text=True,
            check=False,
            timeout=MAKE_TIMEOUT_S,
        )
        if made.returncode != 0:
            stop(f"mmdebstrap failed: {made.stderr[-2000:]}")
        engine.run_or_stop("importing the Debian root", "import", str(archive), ROOT)


def _write_context(context: Path) -> None:
    """Write what the base image copies: instructions, certificates, pip's settings."""
    (context / "Dockerfile").write_text(_BASE)
    bundle = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE") or str(CERTIFICATES)
    shutil.copy(bundle, context / "certificates")
    (context / "pip.conf").write_text(pip_settings(_pip_config()))


def _pip_config() -> str:
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False, timeout=60
    )
    return listed.stdout


def pip_settings(listed: str) -> str:
    """Return a pip.conf with the options of `pip config list` that a build needs.

    pip lists variables of the environment first, and they win.
    """
    chosen = {"cert": str(CERTIFICATES)}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        option = name.rpartition(".")[2]
        if option in PIP_OPTIONS and option not in chosen:
            chosen[option] = value.strip("'\"").replace("\\n", " ")
    return "[global]\n" + "".join(f"{option} = {value}\n" for option, value in chosen.items())
