"""The curated erasure lists: each loads as a run would load it, and has all that an edit works from."""

from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.concepts.mentions import Naming
from pipeline.config import load_config
from pipeline.config.concepts import concepts_of

CONFIGS = Path(__file__).parents[2] / "configs"
LISTS = sorted(path.name for path in (CONFIGS / "erasure").glob("*.yaml"))


@pytest.mark.parametrize("name", LISTS)
def test_every_concept_has_aliases_an_anchor_and_neighbours(name):
    config = load_config(
        CONFIGS / "quickstart.yaml", ["erasure.concepts=[]", f"erasure.lists=[{CONFIGS}/erasure/{name}]"]
    )
    assert config.erasure.concepts
    for concept in config.erasure.concepts:
        assert concept.aliases
        assert concept.anchor
        assert len(concept.preserve) >= 3


def test_lists_can_be_used_together():
    names = ", ".join(f"{CONFIGS}/erasure/{name}" for name in LISTS)
    config = load_config(CONFIGS / "quickstart.yaml", ["erasure.concepts=[]", f"erasure.lists=[{names}]"])
    assert len(config.erasure.concepts) > 15


def test_show_prints_a_list(capsys):
    overrides = ["erasure.concepts=[]", f"erasure.lists=[{CONFIGS}/erasure/weapons.yaml]"]
    assert main(["show", str(CONFIGS / "quickstart.yaml"), *overrides]) == 0
    assert "name: rifle" in capsys.readouterr().out


def named(prompt):
    names = ", ".join(f"{CONFIGS}/erasure/{name}" for name in LISTS)
    config = load_config(CONFIGS / "quickstart.yaml", ["erasure.concepts=[]", f"erasure.lists=[{names}]"])
    return [mention.concept.name for mention in Naming(concepts_of(config.erasure)).mentions(prompt)]


@pytest.mark.parametrize(
    "prompt",
    [
        "a cow munches grass",
        "a starry night over the desert",
        "an explosive sunset over the sea",
        "a can of ginger ale on a table",
        "a space rocket above a bow tie",
        "a glue gun, nail guns and a water-gun",
        "a bath bomb and a photo_bomb",
        "a sabre-toothed cat under sword lilies",
        "a woman rifles through drawers",
        "a mug of root beer, shrimp cocktails and rum raisin ice cream",
        "a wine-red cocktail dress",
        "a naked mole-rat, hardly seen by the naked eye",
        "parachute pants",
    ],
)
def test_harmless_second_meanings_pass(prompt):
    assert named(prompt) == []


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a sunset by Munch", "Edvard Munch"),
        ("a bridge in the style of Munch", "Edvard Munch"),
        ("the Starry Night painting", "Van Gogh"),
        ("an explosive device", "bomb"),
        ("two pints of ale", "beer"),
        ("two glasses of champagne", "wine"),
        ("cocktail glasses on a bar", "liquor"),
        ("two naked women", "nudity"),
        ("standing naked by the sea", "nudity"),
        ("a cocktail on a table", "liquor"),
        ("champagne at a party", "wine"),
        ("a man vaping", "cigarette"),
        ("a bong", "hookah"),
        ("a pile of cocaine", "cocaine"),
        ("drug needles", "drug syringe"),
        ("a soldier with an AK-47", "rifle"),
        ("a crossbow", "crossbow"),
        ("a machete", "sword"),
        ("cruise missiles", "missile"),
        ("a gun", "gun"),
        ("a hot glue gun beside a gun", "gun"),
        ("a soldier with an AK\u201147", "rifle"),
        ("a man who holds a Molotov cocktail", "bomb"),
        ("a sunset in Munch’s manner", "Edvard Munch"),
        ("naked eyes of a naked man", "nudity"),
    ],
)
def test_what_a_list_is_for_is_found(prompt, name):
    assert named(prompt) == [name]
