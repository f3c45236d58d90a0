"""Write openapi.json and asyncapi.json to a directory, and the event types of the JavaScript client beside it.

python -m gateway.documents docs
"""

import json
import sys
from pathlib import Path

from gateway.documents import DOCUMENTS
from gateway.documents.typescript import EVENT_TYPES_PATH, declarations

if __name__ == "__main__":
    directory = Path(sys.argv[1])
    for name, make in DOCUMENTS.items():
        (directory / name).write_text(json.dumps(make(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    EVENT_TYPES_PATH.write_text(declarations(), encoding="utf-8")
