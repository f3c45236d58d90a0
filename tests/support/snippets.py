"""The fenced code blocks of a Markdown file, so that tests can run documented programs.

    ```js reconnect            <- language, then words for the tests: names, marks
    ...
    ```

`snippets(path)` returns them in order. A fence of n backticks or tildes ends at one of at least n; blocks inside lists
lose the indentation of their fence. An unclosed block is an error in the document.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")


@dataclass(frozen=True)
class Snippet:
    """One block. `line` is its first line of text, counted from 1; `words` follow the language."""

    path: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def where(self) -> str:
        """Return file and line, for test ids and messages."""
        return f"{self.path.name}:{self.line}"


def snippets(path: Path, *languages: str) -> Sequence[Snippet]:
    """Return the blocks of a file in order, of all or the named languages. Raises ValueError for an unclosed block."""
    found: list[Snippet] = []
    lines = iter(enumerate(path.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        if (opening := _FENCE.match(line)) is None:
            continue
        language, *words = opening["info"].split() or [""]
        text: list[str] = []
        for _, inner in lines:
            if _closes(inner, opening["fence"]):
                break
            text.append(inner.removeprefix(opening["indent"]))
        else:
            raise ValueError(f"{path}:{number}: the block is not closed")
        found.append(Snippet(path, number + 1, language, tuple(words), "\n".join(text) + "\n"))
    return [snippet for snippet in found if not languages or snippet.language in languages]


def _closes(line: str, fence: str) -> bool:
    stripped = line.strip()
    return len(stripped) >= len(fence) and set(stripped) == {fence[0]}
