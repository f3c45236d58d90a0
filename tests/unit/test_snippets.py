"""The extraction of code blocks from documents."""

from pathlib import Path

import pytest

from tests.support.snippets import snippets

DOCUMENT = """
# Title

```js first run
const a = 1;

const b = `x`;
```
Text with ``` in it, and

1. a list:

   ~~~~python
   if True:
       print("```")
   ~~~
   ~~~~
```
no language
```
"""


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "guide.md"
    path.write_text(DOCUMENT)
    return path


def test_blocks_are_returned_in_order_with_language_words_and_line(document: Path) -> None:
    first, second, third = snippets(document)
    assert (first.language, first.words, first.where) == ("js", ("first", "run"), "guide.md:5")
    assert first.text == "const a = 1;\n\nconst b = `x`;\n"
    assert (second.language, second.words, second.line) == ("python", (), 14)
    assert second.text == 'if True:\n    print("```")\n~~~\n'
    assert (third.language, third.text) == ("", "no language\n")


def test_languages_filter_blocks(document: Path) -> None:
    assert [snippet.language for snippet in snippets(document, "python", "sh")] == ["python"]


def test_unclosed_block_is_error(document: Path) -> None:
    document.write_text("text\n```sh\nmake run\n")
    with pytest.raises(ValueError, match=r"guide\.md:2: the block is not closed"):
        snippets(document)
