"""A vocabulary is a word a line; what is none is refused with its line."""

from pathlib import Path

import pytest

from pipeline.concepts.everyday import FILE
from pipeline.errors import ConfigError
from pipeline.evaluation.words.vocabulary import read_vocabulary, words_of_prompts


def test_words_are_read_once_in_every_writing(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeffcat\n# a comment\n\nCAT\n  hot dog \n\u732b\n\U0001f431\n", encoding="utf-8")
    assert read_vocabulary(path) == ["cat", "hot dog", "\u732b", "\U0001f431"]
    assert len(read_vocabulary(FILE)) == 20_000


@pytest.mark.parametrize("line", ["salt, pepper", "!!!", "{}"])
def test_what_no_concept_could_be_called_by_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "words.txt"
    path.write_text(f"cat\n{line}\n")
    with pytest.raises(ConfigError, match=rf"^words\.vocabulary: {path}: line 2: is '"):
        read_vocabulary(path)


def test_words_of_prompts_are_the_most_frequent_first() -> None:
    assert words_of_prompts(["a cat on a mat", "a CAT, 2 of", "\u732b"]) == ["cat", "mat", "\u732b"]
