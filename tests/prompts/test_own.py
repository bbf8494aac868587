"""A source of one's own, ``module:Class``: options, columns and bad rows as of any other, and what it may get wrong."""

import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import Source
from pipeline.cli import main
from pipeline.cluster.triage import last_line
from pipeline.config import load_config
from pipeline.config.schema import PromptsConfig
from pipeline.errors import ConfigError
from pipeline.prompts import open_source

WORDS = ["cat", "dog", "tree"]


class Numbered(Source):
    """Prompts with a number, every third with a seed of its own."""

    def __init__(self, count: int = 10, word: str = "cat", spoilt: bool = False):
        self.count, self.word, self.spoilt = count, word, spoilt

    @property
    def fingerprint(self):
        return f"{self.word} {self.count} {self.spoilt}"

    def __len__(self):
        return self.count

    def table(self, start, stop):
        numbers = range(start, stop)
        prompts = ["" if self.spoilt and i == 4 else f"a {self.word} {i}" for i in numbers]
        seeds = pa.array([i if i % 3 == 0 else None for i in numbers], pa.int64())
        return pa.table({"prompt": prompts, "seed": seeds, "number": pa.array(list(numbers), pa.int16())})


class Same(Numbered):
    fingerprint = "always the same"


class Unnamed(Numbered):
    fingerprint = 7


class Short(Numbered):
    def table(self, start, stop):
        return super().table(start, stop).slice(1)


class Listed(Numbered):
    def table(self, start, stop):
        return [{"prompt": "a"}] * (stop - start)


class Nameless(Numbered):
    def table(self, start, stop):
        return super().table(start, stop).rename_columns(["promt", "seed", "number"])


class Failing(Numbered):
    """Raises in the method *at*, or there from the row *late* on."""

    def __init__(self, at: str = "__init__", late: int = 0):
        super().__init__()
        self.at, self.late = at, late
        self._reach("__init__")

    def _reach(self, name, row=0):
        if name == self.at and row >= self.late:
            raise ConnectionError("the server\nis away")

    @property
    def fingerprint(self):
        self._reach("fingerprint")
        return "failing"

    def __len__(self):
        self._reach("__len__")
        return super().__len__()

    def table(self, start, stop):
        self._reach("table", start)
        return super().table(start, stop)

    def __getstate__(self):
        self._reach("__getstate__")
        return vars(self)


class Unfinished(Source):
    def __len__(self):
        return 1


def own(name: str = "Numbered", **settings):
    options = settings.pop("options", {})
    return open_source(PromptsConfig(source=f"{__name__}:{name}", options=options, **settings))


def test_rows_and_columns_are_as_of_any_source():
    source = own(options={"count": 9, "word": "dog"})
    assert len(source) == 9
    assert source.fingerprint == 'own:dog 9 False:{"count": 9, "word": "dog"}'
    assert source.schema == pa.schema([("number", pa.int16())])
    found = source.read(2, 5)
    assert [(row.prompt, row.seed) for row in found.rows] == [("a dog 2", None), ("a dog 3", 3), ("a dog 4", None)]
    assert found.columns["number"].to_pylist() == [2, 3, 4]
    assert [len(rows.rows) for rows in source.read_blocks([range(2), range(4, 9)])] == [2, 5]
    looked = own(options={"count": 9}, limit=7).look()
    assert (looked.rows, looked.bad, looked.seeds) == (7, 0, 3)


def test_options_are_part_of_what_names_it_but_for_the_place_of_a_file(tmp_path):
    assert own("Same", options={"word": "a"}).fingerprint != own("Same", options={"word": "b"}).fingerprint
    here, there = tmp_path / "here.txt", tmp_path / "there.txt"
    for place in (here, there):
        place.write_text("the same")
    assert own("Same", options={"word": str(here)}).fingerprint == own("Same", options={"word": str(there)}).fingerprint


def test_columns_mean_what_the_config_says():
    source = own(columns={"seed": None, "pass": ["seed"]})
    assert source.schema.names == ["seed"]
    assert all(row.seed is None for row in source.read(0, 10).rows)
    with pytest.raises(ConfigError, match=r"prompts\.columns\.size: .*:Numbered has no column 'nmber' \(did you"):
        own(columns={"size": "nmber"})


def test_a_bad_row_is_told_with_its_number():
    looked = own(options={"spoilt": True}).look()
    assert looked.bad == 1
    assert looked.first == (4, f"{__name__}:Numbered: row 5: column 'prompt' is blank; expected a prompt")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "Numbered",
            {"cout": 3},
            r"^prompts\.options\.cout: .*:Numbered has no such option \(did you mean",
        ),
        ("Numbered", {"count": "x"}, r"^prompts\.options\.count: Value 'x' .* could not be converted to Integer"),
        ("Numberd", {}, r"^prompts\.source: .*:Numberd: module '.*' has no class 'Numberd'"),
        ("Unfinished", {}, r":Unfinished does not define fingerprint, table; expected __len__, fingerprint and table$"),
        ("Unnamed", {}, r":Unnamed\.fingerprint is 7; expected a text$"),
        ("Short", {}, r":Short\.table\(0, 10\) gave 9 rows; expected 10$"),
        ("Listed", {}, r":Listed\.table\(0, 10\) gave a list; expected a pyarrow\.Table$"),
        ("Nameless", {}, r"^prompts\.columns\.prompt: .*:Nameless has no column 'prompt' \(did you mean 'promt'\?\)"),
        ("WORDS", {}, r":WORDS: is no subclass of pipeline\.prompts\.own\.Source$"),
    ],
)
def test_what_is_wrong_with_a_source_is_a_line(name, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        own(name, options=options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("at", "named"),
    [
        ("__init__", ""),
        ("fingerprint", ".fingerprint"),
        ("__len__", ".__len__"),
        ("table", ".table(0, 10)"),
        ("__getstate__", ", for other processes"),
    ],
)
def test_what_its_code_raises_keeps_its_traceback_and_ends_in_the_key_and_the_class(at, named):
    with pytest.raises(ConnectionError) as caught:
        pickle.dumps(own("Failing", options={"at": at}))
    assert caught.traceback[-1].name == "_reach"
    told = f"prompts.source: {__name__}:Failing{named}: ConnectionError: the server is away"
    assert caught.value.__notes__ == [told]


def test_what_it_raises_later_is_the_last_line_of_the_log():
    source = own("Failing", options={"at": "table", "late": 4})
    assert len(source.read(0, 4).rows) == 4
    with pytest.raises(ConnectionError) as caught:
        source.read(4, 7)
    told = f"prompts.source: {__name__}:Failing.table(4, 7): ConnectionError: the server is away"
    assert last_line("".join(traceback.format_exception(caught.value))) == told


def test_it_travels_to_a_process_that_does_not_stand_there(tmp_path, monkeypatch):
    (tmp_path / "standing_here.py").write_text(
        "import pyarrow as pa\n"
        "from pipeline import Source\n"
        "class Two(Source):\n"
        "    fingerprint = 'two'\n"
        "    def __len__(self): return 2\n"
        "    def table(self, start, stop): return pa.table({'prompt': ['a cat', 'a dog'][start:stop]})\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    source = open_source(PromptsConfig(source="standing_here:Two"))
    Path("source.pickle").write_bytes(pickle.dumps(source))
    code = "import pickle; print([r.prompt for r in pickle.load(open('source.pickle', 'rb')).read(0, 2).rows])"
    ran = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout == "['a cat', 'a dog']\n"


CONFIG = f"""
model: {{path: diorama}}
prompts: {{source: "{__name__}:Numbered", options: {{count: 6}}}}
generation: {{size: [64, 64], compile: none, steps: 1, batch_size: 2}}
audit: {{detectors: []}}
output: {{path: out}}
"""


def test_a_config_names_it_where_paths_and_options_of_others_stand(tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text(CONFIG)
    config = load_config(file)
    assert config.prompts.source == f"{__name__}:Numbered", "no path of the config's folder"
    assert main(["show", str(file)]) == 0
    first = capsys.readouterr().out.splitlines()[-1]
    assert main(["show", str(file), "prompts.options={count: 7}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] != first, "the fingerprint is in the identity"
    file.write_text(CONFIG.replace(f"{__name__}:Numbered", "p.txt"))
    assert main(["show", str(file)]) == 2
    assert "prompts.options: are given, but only a source that is module:Class takes any" in capsys.readouterr().err
