"""`lacuna words`: what a list acts on, and what a dictionary knows beside it."""

import json
from pathlib import Path

import pytest

from pipeline.cli import main
from tests import tiny

CONFIG = """
model: {{path: {model}, dtype: float32}}
erasure:
  concepts:
    - {{name: gun, aliases: [pistol, handgun, 🔫], keep: [water gun], preserve: [camera]}}
    - {{name: rifle, proven: [carbine], implied: [war], ignore: [rifling]}}
    - {{name: qwertz}}
  recipe: []
prompts: {{template: "a {{thing}}", values: {{thing: [gun]}}}}
output: {{path: out/x}}
audit: {{policy: keep, captions: drop}}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(model=tiny.path()))
    return str(path)


def test_it_tells_words_apart_by_sense_and_names_what_nobody_lists(config, capsys):
    assert main(["words", config, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    gun, rifle, qwertz = report["concepts"]
    assert gun["words"] == ["gun", "pistol", "handgun", "🔫"]
    assert (gun["keep"], gun["preserve"]) == (["water gun"], ["camera"])
    weapon, *others = gun["senses"]
    assert weapon["gloss"].startswith("a weapon that discharges a missile")
    assert weapon["listed"] == ["pistol", "handgun"]
    assert {"firearm", "revolver"} <= {*weapon["kinds"]}
    assert not {"gun", "pistol", "horse pistol", "rifle", "air gun"} & {
        *weapon["kinds"]
    }  # which the list finds already
    assert "bow" in weapon["siblings"]
    assert any("gas pedal" in other["synonyms"] for other in others)
    assert not any("gas pedal" in weapon[what] for what in ("kinds", "synonyms"))
    assert rifle["senses"][0]["listed"] == []
    assert qwertz["senses"] == []


def test_it_shows_what_a_tokenizer_reads_in_pieces(config, capsys):
    assert main(["words", config, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["tokenizers"] == ["tokenizer"]
    pieces = report["concepts"][2]["pieces"]["tokenizer"]["qwertz"]
    assert len(pieces) > 1
    assert "".join(pieces) == "qwertz_"


def test_the_text_has_a_line_for_each_thing(config, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")
    assert main(["words", config]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["concepts   3", "tokenizers tokenizer"]
    assert "  words      gun, pistol, handgun, 🔫" in lines
    assert "  keep       water gun" in lines
    assert {"  proven     carbine", "  implied    war", "  ignore     rifling"} <= {*lines}
    assert "    listed   pistol, handgun" in lines
    assert "  dictionary has no such word" in lines
    assert any(line.startswith("  n03467984  a weapon that discharges") for line in lines)
    assert any(line.endswith("more (--json has all)") for line in lines)


def test_lines_are_no_longer_than_the_terminal_and_go_on_beside_their_labels(config, capsys, monkeypatch):
    said = {}
    for width in (60, 90, 10_000):
        monkeypatch.setenv("COLUMNS", str(width))
        assert main(["words", config]) == 0
        said[width] = capsys.readouterr().out
    assert all(len(line) <= width for width in said for line in said[width].splitlines())
    assert said[60].split() == said[90].split() == said[10_000].split()
    assert "\n             " in said[90]


def test_a_model_that_is_not_here_is_not_fetched(config, capsys):
    assert main(["words", config, "model.path=nobody/nothing"]) == 0
    assert "tokenizers not asked, as nobody/nothing is no folder on this machine" in capsys.readouterr().out


def test_a_model_without_its_tokenizer_is_refused_in_a_line(config, tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model_index.json").write_text((Path(tiny.path()) / "model_index.json").read_text())
    assert main(["words", config, f"model.path={tmp_path}/model", "generation.size=[32,32]"]) == 2
    error = capsys.readouterr().err
    assert "its tokenizer cannot be read" in error
    assert error.count("\n") == 1
