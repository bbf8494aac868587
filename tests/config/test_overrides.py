"""An override's value for a text field is what the shell gave; keys with dots stand in brackets."""

from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.errors import ConfigError

TEXTS = (
    "blurry, #ff0000 border", "a #2", "#", "a: b", "a:", ": a", "{x", "[x", "}", "*x", "&x", "!x", "!!str x", "@x",
    "%x", "`x`", "'x'", '"x"', "it's", '"a" or b', "- x", "? x", "| x", "> x", "x = y", "--- x", "a\\b", "x\ty",
    "a\nb", "007", "12:30", "yes", "no", "true", "null", "~", "", " x ", "$x", "$ {x}", "ü",
)  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_what_the_shell_gave(text: str, sound: Path):
    assert load_config(sound, [f"generation.negative_prompt={text}"]).generation.negative_prompt == text


def test_paths_templates_names_and_items_of_lists_too(sound: Path):
    overrides = [
        "output.path=/tmp/run #2",
        "prompts.template=a {animal}, {place}: #1",
        "erasure.concepts[0].aliases[1]=#x",
    ]
    config = load_config(sound, [*overrides, "prompts.values.animal[0]=12:30 #"])
    assert config.output.path == "/tmp/run #2"
    assert config.prompts.template == "a {animal}, {place}: #1"
    assert config.erasure.concepts[0].aliases == ["kitten", "#x"]
    assert config.prompts.values["animal"] == ["12:30 #", "dog"]


@pytest.mark.parametrize("nothing", ["null", "~", ""])
def test_nothing_takes_away_what_may_be_absent(nothing: str, sound: Path):
    sound.write_text(sound.read_text().replace("path: diorama", "path: diorama, revision: x", 1))
    assert load_config(sound).model.revision == "x"
    assert load_config(sound, [f"model.revision={nothing}"]).model.revision is None


def test_keys_with_dots_and_brackets(sound: Path):
    sound.write_text(sound.read_text().replace("{name: knife}", "{name: St. Bernard}"))
    for key in ("[St. Bernard]", '["St. Bernard"]', "['St. Bernard']"):
        config = load_config(sound, [f"audit.detectors[0].thresholds{key}=.3"])
        assert config.audit.detectors[0].thresholds == {"St. Bernard": 0.3}
    assert load_config(sound, ["erasure.concepts.1.name=fox"]).erasure.concepts[1].name == "fox"
    with pytest.raises(ConfigError, match=r"brackets: audit\.detectors\[0\]\.thresholds\[St. Bernard\]=\.\.\."):
        load_config(sound, ["audit.detectors.0.thresholds.St. Bernard=.3"])


def test_mappings_merge_and_the_last_word_counts(sound: Path):
    config = load_config(sound, ["generation={steps: 3, guidance: 4}", "generation={steps: 5}", "generation.steps=6"])
    assert (config.generation.steps, config.generation.guidance) == (6, 4.0)
    with pytest.raises(ConfigError, match=r"override 'seed=-2': seed: is -2"):
        load_config(sound, ["seed=-1", "seed=-2"])
    sound.write_text(sound.read_text() + "cluster:\n")
    assert load_config(sound, ["cluster.workers.max=3"]).cluster.workers.max == 3


def test_an_override_changes_one_place_and_not_what_an_alias_repeats(sound: Path):
    steps = "    - {method: uce, options: &o {lamb: 1000, templates: [a]}}\n    - {method: rece, options: *o}\n"
    above, steering = sound.read_text().split("    - {method: uce}\n    - {method: cease, concepts: [cat]}\n")
    sound.write_text(above + steps + steering)
    for override in ("erasure.recipe[0].options.lamb=5", "erasure.recipe[0].options={lamb: 5}"):
        changed, kept = load_config(sound, [override]).erasure.recipe
        assert changed.options == {"lamb": 5, "templates": ["a"]}
        assert kept.options == {"lamb": 1000, "templates": ["a"]}
    changed, kept = load_config(sound, ["erasure.recipe[1].options.templates[0]=b"]).erasure.recipe
    assert (changed.options["templates"], kept.options["templates"]) == (["a"], ["b"])
