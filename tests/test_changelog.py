"""CHANGELOG.md has a line for each change of semantics, of the corpus format, of the manifest's schema and of keys."""

import re
from pathlib import Path

from pipeline.config.identity import SEMANTICS
from pipeline.config.schema import RENAMED
from pipeline.corpus.layout import FORMATS
from pipeline.corpus.manifest import SCHEMA
from pipeline.erasure.cease.options import CEASEOptions

TEXT = (Path(__file__).parents[1] / "CHANGELOG.md").read_text()


def entries(what: str) -> set[int]:
    return {
        int(number) for number in re.findall(rf"^- \*\*{what} (\d+)\*\* \(\d{{4}}-\d\d-\d\d\): ", TEXT, re.MULTILINE)
    }


def test_each_number_has_its_entry():
    assert entries("Semantics") >= set(range(2, SEMANTICS + 1))
    assert entries("Format") == set(FORMATS)
    assert entries("Schema") == set(range(2, SCHEMA + 1))


def test_each_renamed_key_is_told_with_its_new_name():
    for old, new in (RENAMED | dict(CEASEOptions.RENAMED)).items():
        assert re.search(rf"`{re.escape(old)}`( of `cease`)? is now `{re.escape(new)}`", TEXT)
