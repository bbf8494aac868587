"""EXTENDING.md is right: each recipe's blocks are written and run as a reader would, and print what the page says."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import pipeline
from pipeline.cli import main

pytestmark = pytest.mark.slow

PACKAGE = Path(pipeline.__file__).parent
PAGE = (PACKAGE / "EXTENDING.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


class Block(NamedTuple):
    language: str
    file: str  # none: commands, or what they print
    text: str


def blocks(section: str) -> Iterator[Block]:
    for language, file, text in re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        yield Block(language, file, text)


class Reader:
    """Does what a recipe says, in a folder of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]):
        self.folder, self.capsys, self.printed = folder, capsys, ""

    def follow(self, section: str) -> None:
        for block in blocks(section):
            if block.file:
                (self.folder / block.file).write_text(block.text)
            elif block.language == "bash":
                self.printed = "".join(map(self.give, block.text.splitlines()))
            else:
                assert block.language == "text"
                assert self.printed == block.text

    def give(self, command: str) -> str:
        """Give one command; return what a script of the recipe prints."""
        program, *arguments = shlex.split(command)
        if program == "lacuna":
            assert main(arguments) == 0, self.capsys.readouterr().err
            return ""
        assert program == "python"
        places = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
        script = [sys.executable, *arguments]
        ran = subprocess.run(script, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def refused(self, *arguments: str) -> str:
        """Give a `lacuna` command that is refused; return its line."""
        self.capsys.readouterr()
        assert main(list(arguments)) == 2
        (line,) = [line for line in self.capsys.readouterr().err.splitlines() if line.startswith("lacuna: ")]
        return line


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Reader]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    forget_modules()
    yield Reader(tmp_path, capsys)
    forget_modules()


def forget_modules() -> None:
    """Modules outlive a test, and others of the page's names may have been imported."""
    for section in SECTIONS.values():
        for block in blocks(section):
            sys.modules.pop(block.file.removesuffix(".py"), None)


def test_the_page_has_the_six_recipes_and_names_only_what_is_there():
    assert list(SECTIONS) == ["A method", "A detector", "A measure", "A family", "A source", "A column"]
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (PACKAGE / target).exists(), target
    for anchor in re.findall(r"\]\(#([^)]+)\)", PAGE):
        assert anchor.replace("-", " ") in [title.lower() for title in SECTIONS]
    (offered,) = re.findall(r"`from pipeline import ([^`]+)`", PAGE)
    for name in re.split(r",\s*", offered):
        assert name in pipeline.__all__


def test_a_method(reader: Reader):
    reader.follow(SECTIONS["A method"])
    (shown,) = re.findall(r"^```\n(lacuna: .*)\n```$", PAGE, re.MULTILINE)
    typo = "erasure.recipe=[{method: 'my_method:Rewrite', options: {strenght: 1}}]"
    assert reader.refused("plan", "method.yaml", "--no-measure", typo) == shown
    typo = typo.replace("strenght: 1", "strength: 2")
    assert "options: strength is 2.0; expected 0 to 1" in reader.refused("plan", "method.yaml", "--no-measure", typo)
    plain = ["erasure.recipe=[]", "output.path=out/plain"]
    assert main(["run", "method.yaml", *plain]) == 0
    concerned, other = (pictures(reader.folder / "out" / name) for name in ("method", "plain"))
    assert [concerned[key] == other[key] for key in sorted(other)] == [False, True], "kitten, guitar"


def pictures(corpus: Path) -> dict[str, str]:
    import pyarrow.parquet as pq

    return {row["key"]: row["sha256"] for row in pq.read_table(corpus / "manifests").to_pylist()}


def test_a_detector(reader: Reader):
    reader.follow(SECTIONS["A detector"])
    (reader.folder / "brightness.json").write_text('{"middle": 0.99}')
    (reader.folder / "out/detector/commits/000000.json").unlink()  # so that there is something left to draw
    changed = reader.refused("run", "detector.yaml")
    assert re.search(
        r"audit\.detectors\[0\]: weights and code of my_detector:Brightness are now sha256:\w+, but the corpus", changed
    )
    assert main(["run", "detector.yaml", "output.path=out/strict"]) == 1  # nothing was kept
    assert "2 quarantined" in reader.capsys.readouterr().out
    typo = ["plan", "detector.yaml", "--no-measure", "audit.detectors[0].options={weigths: brightness.json}"]
    told = reader.refused(*typo)
    assert "audit.detectors[0].options.weigths: my_detector:Brightness has no such option (did you mean" in told


def test_a_measure(reader: Reader):
    reader.follow(SECTIONS["A measure"])
    code = (reader.folder / "my_measure.py").read_text()
    (reader.folder / "my_measure.py").write_text(code.replace("0.3", "0.4"))
    forget_modules()
    (reader.folder / "out/measure/commits/000000.json").unlink()
    changed = reader.refused("run", "measure.yaml")
    assert "audit.quality[0]: my_measure:Colourfulness is now another than the corpus was begun with: " in changed
    typo = reader.refused("plan", "measure.yaml", "--no-measure", "audit.quality=['my_measure:Colorfulness']")
    assert typo == (
        "lacuna: audit.quality[0].measure: my_measure:Colorfulness: module 'my_measure' has no class 'Colorfulness'"
    )


def test_a_family(reader: Reader):
    reader.follow(SECTIONS["A family"])
    no_such = ["run", "family.yaml", "model.family=null", "output.path=out/other", "generation.compile=none"]
    assert "LatentConsistencyModelPipeline, which is not supported" in reader.refused(*no_such)
    no_such[2] = "erasure.recipe=[{method: negative_prompt}]"
    assert "its guidance is an input of the UNet, so there is no negative branch" in reader.refused(*no_such)
    another = reader.refused("run", "family.yaml", "model.family=StableDiffusionPipeline", "generation.compile=none")
    assert 'model.family: "my_family:LatentConsistency" -> "StableDiffusionPipeline"' in another


def test_a_source(reader: Reader):
    reader.follow(SECTIONS["A source"])
    reader.give("python -c \"import sqlite3; d = sqlite3.connect('prompts.db'); "
                "d.execute('DELETE FROM prompts WHERE rowid = 3'); d.commit()\"")  # fmt: skip
    assert re.search(r'source: "own:\w+" -> "own:\w+"', reader.refused("run", "source.yaml"))
    gone = reader.refused("plan", "source.yaml", "--no-measure", "prompts.options={path: gone.db}")
    assert gone.endswith("prompts.options.path: gone.db: no such file")


def test_a_column(reader: Reader):
    reader.follow(SECTIONS["A column"])
    wrong = reader.refused("plan", "column.yaml", "--no-measure", "prompts.columns.pass=[idd]")
    assert "prompts.columns.pass[0]: " in wrong
    assert "has no column 'idd' (did you mean 'id'?)" in wrong
