"""The curated erasure lists: each loads as a run would load it, and has all that an edit works from."""

from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.config import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
LISTS = sorted(path.name for path in (CONFIGS / "erasure").glob("*.yaml"))


@pytest.mark.parametrize("name", LISTS)
def test_every_concept_has_aliases_an_anchor_and_neighbours(name):
    config = load_config(CONFIGS / "quickstart.yaml", ["erasure.concepts=[]", f"erasure.lists=[erasure/{name}]"])
    assert config.erasure.concepts
    for concept in config.erasure.concepts:
        assert concept.aliases
        assert concept.anchor
        assert len(concept.preserve) >= 3


def test_lists_can_be_used_together():
    names = ", ".join(f"erasure/{name}" for name in LISTS)
    config = load_config(CONFIGS / "quickstart.yaml", ["erasure.concepts=[]", f"erasure.lists=[{names}]"])
    assert len(config.erasure.concepts) > 15


def test_show_prints_a_list(capsys):
    overrides = ["erasure.concepts=[]", "erasure.lists=[erasure/weapons.yaml]"]
    assert main(["show", str(CONFIGS / "quickstart.yaml"), *overrides]) == 0
    assert "name: rifle" in capsys.readouterr().out
