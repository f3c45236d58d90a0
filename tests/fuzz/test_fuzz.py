"""Ten seconds of the fuzzer; `make fuzz MINUTES=10` is the long form."""

import asyncio
import random
from pathlib import Path

from tests.fuzz.run import SETTINGS, fuzz
from tests.support.local_system import LocalSystem

SECONDS = 10.0


async def test_gateway_survives_fuzzing(amqp_url: str, mongodb_uri: str, database_name: str, tmp_path: Path) -> None:
    own = {"AMQP_URL": amqp_url, "MONGODB_URI": mongodb_uri, "MONGODB_DATABASE": database_name}
    system = LocalSystem(tmp_path, {**SETTINGS, **own})
    await asyncio.to_thread(system.start)
    try:
        report = await fuzz(system, SECONDS, random.randrange(2**32))
    finally:
        await asyncio.to_thread(system.stop)
    assert report.problems == [], report
    assert report.messages > 0
    assert all(report.sent.values())
