"""Entry point: `python -m gateway.documents docs` writes openapi.json and asyncapi.json to `docs`."""

import json
import sys
from pathlib import Path

from gateway.documents import DOCUMENTS

if __name__ == "__main__":
    directory = Path(sys.argv[1])
    for name, make in DOCUMENTS.items():
        (directory / name).write_text(json.dumps(make(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
