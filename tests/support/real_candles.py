"""Real candles for tests, from the files of the package `backtesting`."""

import csv
import importlib.util
from pathlib import Path


def real_candles(name: str) -> tuple[Path, list[dict[str, str]]]:
    """Return a file of the package `backtesting`, found without importing it, and its rows."""
    spec = importlib.util.find_spec("backtesting")
    assert spec is not None and spec.submodule_search_locations, "backtesting is a development dependency"
    path = Path(spec.submodule_search_locations[0]) / "test" / name
    with path.open(newline="", encoding="utf-8") as file:
        return path, list(csv.DictReader(file))
