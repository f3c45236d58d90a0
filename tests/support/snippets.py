"""The fenced code blocks of a Markdown file, so that tests can run what the documents show.

    ```js reconnect            <- language, then words of the test's own: names, marks
    ...
    ```

`snippets(path)` gives them in order. A fence of n backticks or tildes ends at one of as many or more; blocks inside
lists keep no more indentation than their fence had. A block that is not closed is an error: the document is broken.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")


@dataclass(frozen=True)
class Snippet:
    """One block. `line` is that of its first line of text, from 1; `words` is what stands behind the language."""

    path: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def where(self) -> str:
        """File and line, for test ids and messages."""
        return f"{self.path.name}:{self.line}"


def snippets(path: Path, *languages: str) -> Sequence[Snippet]:
    """The blocks of a file, in order: of all languages, or of those named. Raises ValueError if one is not closed."""
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
