"""A scalar is what was written: text fields keep it to the letter, numbers are decimal, options are YAML 1.2's."""

from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from pipeline.config import identity, load_config, to_public_dict, to_public_yaml
from pipeline.config.problem import Problem
from pipeline.config.scalars import Plain
from pipeline.config.schema import Config, ErasureList
from pipeline.config.sections.declare import settings
from pipeline.config.shape import arms, build
from pipeline.errors import ConfigError

# What YAML 1.1, or Python, takes for something else.
TEXTS = (
    "007", "0005747", "010", "1.10", "1234e8", "1e3", ".5", "5.", "+5", "-0", "20240501_1530", "1_000", "0x1F", "0b1",
    "0o17", "12:30", "10:00", "1:2:3", "2024-05-01", "2001-12-14t21:59:43.10-05:00", "NaN", ".nan", ".inf", "-.inf",
    "=", "y", "n", "nil", "None", "yes!", "a#b", "12_", "1,000",
)  # fmt: skip
TRUTHS = ("yes", "No", "ON", "off", "true", "False")
NOTHING = ("~", "null", "Null", "NULL")


def text_fields(owner: type) -> list[tuple[type, str, Any]]:
    """Every field of *owner*, and of what it holds, that may be text, or holds text in lists or as keys and values."""
    found = []
    for f in settings(owner):
        hint = get_type_hints(owner)[f.name]
        for arm in (hint, *getattr(hint, "__args__", ())):
            if is_dataclass(arm):
                found += text_fields(arm)  # type: ignore[arg-type]
        if any("str" in str(arm) or arm is str for arm in arms(hint)):
            found.append((owner, f.name, hint))
    return found


FIELDS = list({(f[0].__name__, f[1]): f for f in text_fields(Config) + text_fields(ErasureList)}.values())


def given(owner: type, name: str, value: Any) -> Any:
    """The field *name* of *owner*, given *value* and of the rest what must be given."""
    sections = {"model": {"path": "x"}, "output": {"path": "x"}} if owner is Config else {}
    required = {f.name: "x" for f in settings(owner) if f.default == "???"}
    return getattr(build(owner, {**sections, **required, name: value}), name)


def test_the_fields_are_those_of_the_schema():
    assert {"path", "name", "aliases", "anchor", "values", "thresholds", "negative_prompt", "concepts"} <= {
        name for _, name, _ in FIELDS
    }
    assert len(FIELDS) >= 27


@pytest.mark.parametrize(("owner", "name", "hint"), FIELDS, ids=lambda part: getattr(part, "__name__", str(part)))
def test_every_text_field_keeps_what_was_written_or_asks_for_quotes(owner: type, name: str, hint: Any):
    shapes = {
        "str": lambda text: text,
        "list[str]": lambda text: [text],
        "dict[str, str]": lambda text: {text: text},
        "dict[str, float]": lambda text: {text: Plain("0.5")},
        "dict[str, list[str]]": lambda text: {text: [text]},
        "dict[str, str | list[str] | None]": lambda text: {"x": text},
    }
    kinds = [getattr(arm, "__name__", "") if arm is str else str(arm) for arm in arms(hint)]
    shaped = [shapes[kind] for kind in kinds if kind in shapes]
    assert shaped or "Any" in str(hint)  # what may hold anything is typed as YAML 1.2 does, see below
    for shape in shaped:
        for text in TEXTS:
            if owner.__name__ == "GenerationConfig" and name == "batch_size" and text.lstrip("+-").isdecimal():
                continue  # a number or text
            expected = shape(text) if "float" not in str(hint) else {text: 0.5}
            assert given(owner, name, shape(Plain(text))) == expected
        for text in TRUTHS:
            with pytest.raises(Problem, match=f"put it in quotes: '{text}'"):
                given(owner, name, shape(Plain(text)))
            assert given(owner, name, shape(text)) is not None
        for text in NOTHING:
            if "None" in str(hint):
                assert given(owner, name, shape(Plain(text))) == (None if type(None) in arms(hint) else shape(None))
            else:
                with pytest.raises(Problem, match=f"put it in quotes: '{text}'"):
                    given(owner, name, shape(Plain(text)))


def test_in_a_file_and_an_erasure_list(sound: Path):
    (sound.parent / "list.yaml").write_text("concepts: [{name: 007, aliases: [1_000, 0b1], anchor: 12:30}]\n")
    text = sound.read_text().replace("{animal: [cat, dog]", "{animal: [12:30, 10:00, 09:30, 2024-05-01]")
    text = text.replace("erasure:", "erasure:\n  lists: [list.yaml]", 1).replace("out/x", "20240501_1530")
    text = text.replace("path: diorama", "path: owner/0005747, revision: 1.10").replace("[cat]}", "[007]}")
    sound.write_text(text.replace("diorama}]}", "diorama, thresholds: {007: .5}}]}", 1))
    config = load_config(sound)
    concept = config.erasure.concepts[2]
    assert (concept.name, concept.aliases, concept.anchor) == ("007", ["1_000", "0b1"], "12:30")
    assert config.prompts.values["animal"] == ["12:30", "10:00", "09:30", "2024-05-01"]
    assert (config.model.path, config.model.revision, config.output.path) == ("owner/0005747", "1.10", "20240501_1530")
    assert config.erasure.recipe[1].concepts == ["007"]
    assert config.audit.detectors[0].thresholds == {"007": 0.5}


def test_what_was_written_survives_being_saved(sound: Path, tmp_path: Path):
    overrides = ["erasure.concepts[1].name=007", "model.revision=1.10", "prompts.values.animal=[12:30, 1e3, 'no', ~1]"]
    config = load_config(sound, overrides)
    (tmp_path / "again.yaml").write_text(to_public_yaml(config))
    again = load_config(tmp_path / "again.yaml")
    assert to_public_dict(again) == to_public_dict(config) == yaml.safe_load(to_public_yaml(config))
    assert again.prompts.values["animal"] == ["12:30", "1e3", "no", "~1"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("010", 10), ("007", 7), ("+12", 12), ("0", 0), ("'12'", 12), ("00000000000000000000010", 10)],
)
def test_whole_numbers_are_decimal(text: str, value: int, sound: Path):
    assert load_config(sound, [f"seed={text}"]).seed == value
    sound.write_text(sound.read_text() + f"seed: {text}\n")
    assert load_config(sound).seed == value


@pytest.mark.parametrize(
    "text", ["1_000", "0x1F", "0b1", "0o17", "12:30", "1e3", "1.0", "1,000", "yes", "~", "''", "9" * 5000]
)
def test_what_is_no_whole_number_is_refused(text: str, sound: Path):
    with pytest.raises(ConfigError, match=r"seed: is .*; expected a whole number"):
        load_config(sound, [f"seed={text}"])


def test_numbers_and_truths(sound: Path):
    for text, value in {".5": 0.5, "5.": 5.0, "1e1": 10.0, "007.5": 7.5, "'2.5'": 2.5}.items():
        assert load_config(sound, [f"generation.guidance={text}"]).generation.guidance == value
    for text in ("1_0", "1:30", ".inf", ".nan", "nan", "1e999", "0x10", "yes", "~"):
        with pytest.raises(ConfigError, match=r"generation\.guidance: is .*; expected a finite number"):
            load_config(sound, [f"generation.guidance={text}"])
    for text in ("yes", "on", "True", "'true'"):
        assert load_config(sound, [f"prompts.shuffle={text}"]).prompts.shuffle is True
    for text in ("'yes'", "1", "y"):
        with pytest.raises(ConfigError, match=r"prompts\.shuffle: is .*; expected true or false"):
            load_config(sound, [f"prompts.shuffle={text}"])


def test_options_are_typed_as_yaml_1_2_does(sound: Path):
    written = (
        "{a: 010, b: 1e3, c: .5, d: 12:30, e: yes, f: true, g: ~, h: 0x1F, i: 0o17, j: '7', k: 1_000, l: 2024-05-01}"
    )
    options = load_config(sound, [f"erasure.recipe[0].options={written}"]).erasure.recipe[0].options
    assert options == {
        "a": 10, "b": 1000.0, "c": 0.5, "d": "12:30", "e": "yes", "f": True, "g": None, "h": 31, "i": 15, "j": "7",
        "k": "1_000", "l": "2024-05-01",
    }  # fmt: skip
    assert type(options["a"]) is int
    settled = [
        "model.dtype=float32",
        "generation={size: [64, 64], compile: none}",
        "erasure.recipe[0].options.lamb=1e3",
    ]
    assert identity(load_config(sound, settled), "s").fields["erasure.recipe[0].options"] == {"lamb": 1000.0}


def test_plain_lists_have_no_limit_and_aliases_have_one(sound: Path):
    listed = "".join(
        f"- {{name: painter {i}, aliases: [p{i}, q{i}, r{i}], preserve: [a, b, c, d]}}\n" for i in range(1300)
    )
    (sound.parent / "list.yaml").write_text(f"concepts:\n{listed}")
    sound.write_text(sound.read_text().replace("erasure:", "erasure:\n  lists: [list.yaml]", 1))
    assert len(load_config(sound).erasure.concepts) == 1302
    laughs = "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]\n" for i in range(1, 9))
    sound.write_text(f"x0: &x0 [a]\n{laughs}")
    with pytest.raises(ConfigError, match=r"its aliases \(\*name\) stand for 234,567,901 values; expected 1,000,000"):
        load_config(sound)


def test_anchors_and_merged_keys_are_read(sound: Path):
    text = sound.read_text().replace("{name: knife}", "{<<: *base, name: knife}")
    sound.write_text(text.replace("- {name: cat, aliases: [k", "- &base {name: cat, everywhere: true, aliases: [k"))
    with pytest.raises(ConfigError, match="aliases"):
        load_config(sound)  # the second concept has the first's aliases
    sound.write_text(
        sound.read_text().replace("name: knife", "name: knife, aliases: [dagger], anchor: '', preserve: []")
    )
    knife = load_config(sound).erasure.concepts[1]
    assert (knife.name, knife.everywhere, knife.aliases) == ("knife", True, ["dagger"])
