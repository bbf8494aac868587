"""A dictionary made of a small folder in WordNet's own format."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.concepts.dictionary import Dictionary

NOTICE = "  1 This software is provided under a licence.  \n  2   \n  3 Copyright.  \n"
DATA = """\
00000100 03 n 01 thing 0 002 ~ 00000200 n 0000 ~ 00000300 n 0000 | what there is; "a thing"
00000200 05 n 02 cat 0 true_cat 0 003 @ 00000100 n 0000 ~ 00000400 n 0000 ~i 00000500 n 0000 | a feline; "my cat"; "its"
00000300 06 n 02 hot-dog 0 Hot_Dog 1 001 @ 00000100 n 0000 | a sausage
00000400 05 n 01 tabby 0 002 @ 00000200 n 0000 + 00001000 v 0101 | a cat with stripes
00000500 18 n 01 Felix 0 002 @i 00000200 n 0000 ~ 00000600 n 0000 | a cat of that name
00000600 18 n 01 felix_junior 0 001 @ 00000500 n 0000 | of Felix
"""
INDEX = """\
cat n 1 3 @ ~ ~i 1 1 00000200
felix n 1 1 @i 1 0 00000500
felix_junior n 1 1 @ 1 0 00000600
hot_dog n 1 1 @ 1 0 00000300
hot-dog n 1 1 @ 1 0 00000300
tabby n 1 1 @ 1 0 00000400
thing n 1 1 ~ 1 0 00000100
true_cat n 1 3 @ ~ ~i 1 0 00000200
"""


def make(*args: object) -> subprocess.CompletedProcess:
    script = Path(__file__).parents[2] / "jobs/make_dictionary.py"
    return subprocess.run([sys.executable, script, *map(str, args)], capture_output=True, text=True)


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    (tmp_path / "data.noun").write_text(NOTICE + DATA)
    (tmp_path / "index.noun").write_text(NOTICE + INDEX)
    return tmp_path


def test_it_is_made_with_the_notice_and_twice_the_same(wordnet):
    done = make(wordnet, "-o", wordnet / "one")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("one: 5 senses of 6 words\n")
    assert (wordnet / "one/LICENSE.txt").read_text() == "This software is provided under a licence.\n\nCopyright.\n"
    make(wordnet, "-o", wordnet / "two")
    for path in (wordnet / "one").iterdir():
        assert path.read_bytes() == (wordnet / "two" / path.name).read_bytes()
    made = Dictionary(wordnet / "one")
    (cat,) = made.senses("CAT")
    assert (cat.id, cat.words, cat.gloss) == ("n00000200", ("cat", "true cat"), "a feline")
    assert made.kinds(cat) == ["tabby"]  # Felix is no kind of cat
    assert made.senses("felix") == []
    assert made.siblings(cat) == ["hot-dog"]  # in one writing
    assert made.kinds(made.senses("thing")[0]) == ["cat", "true cat", "hot-dog", "tabby"]


@pytest.mark.parametrize("data", [None, "what is no wordnet\n"])
def test_what_is_no_wordnet_is_refused_in_a_line(tmp_path, data):
    if data is not None:
        (tmp_path / "data.noun").write_text(data)
        (tmp_path / "index.noun").write_text(data)
    done = make(tmp_path, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith(f"make_dictionary: {tmp_path}: ")
    assert done.stderr.count("\n") == 1
    assert "expected a folder of WordNet 3.0 or 3.1" in done.stderr
    assert not (tmp_path / "out").exists()
