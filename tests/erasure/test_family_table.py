"""The page that tells which method works where says what the code does, and what cannot work is refused by name."""

from pathlib import Path

import pytest

from pipeline.erasure.method import Method
from pipeline.erasure.recipe import compile_recipe
from pipeline.erasure.table import families, family_table, refusals
from pipeline.errors import ConfigError
from pipeline.registry import METHODS, load_class
from tests.erasure.families import config, load, step

README = Path("pipeline/erasure/README.md")
TINY = {"Stable Diffusion XL": "sdxl", "Stable Diffusion 3": "sd3", "FLUX.1": "flux"}


def test_the_page_holds_the_table_that_the_code_gives():
    assert family_table() in README.read_text(), f"put the output of python -m pipeline.erasure.table into {README}"


def test_every_registered_method_is_in_it():
    assert all(f"| `{name}` |" in family_table() for name in METHODS)


def works(name: str, family: str) -> bool:
    """Does the page say yes?"""
    head, _, *rows = (line.split(" | ") for line in family_table().splitlines() if line.startswith("|"))
    (row,) = (row for row in rows if row[0] == f"| `{name}`")
    return row[[cell.strip(" |") for cell in head].index(family)].strip(" |") == "yes"


@pytest.mark.parametrize("name", METHODS)
def test_what_cannot_work_is_refused_by_name_and_reason(name: str):
    method = load_class("method", name, METHODS, Method)
    for family in families():
        if family.name not in TINY or not refusals(method, family):
            continue
        with pytest.raises(ConfigError) as caught:
            compile_recipe(config(TINY[family.name], step(name)), load(TINY[family.name]))
        first = sorted(method.requires - family.offers)[0]
        assert str(caught.value) == (
            f"erasure.recipe[0].method: {name!r} does not work on {family.name}: {family.lacks[first]}; "
            f"expected one of {', '.join(other for other in METHODS if works(other, family.name))}"
        )


def test_every_family_says_why_it_lacks_what_others_offer():
    offered = frozenset().union(*(family.offers for family in families()))
    for family in families():
        assert offered - family.offers <= family.lacks.keys()
