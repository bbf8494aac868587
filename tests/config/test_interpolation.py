"""``${...}``: variables, other keys and resolvers in fields of every kind; what is no reference says how to escape."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pipeline.config import load_config, to_public_yaml
from pipeline.errors import ConfigError


@pytest.fixture
def resolver():
    OmegaConf.register_new_resolver("twice", lambda x: x * 2, replace=True)
    yield
    OmegaConf.clear_resolver("twice")


def test_references_to_variables_keys_and_resolvers(sound: Path, resolver: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LACUNA_X", "007")
    text = sound.read_text().replace("out/x", "'out/${oc.env:LACUNA_X}/${seed}/${model.revision}'")
    text = text.replace("path: diorama", "path: diorama, revision: 1.10", 1).replace(
        "[tiger, lion", "['${oc.env:LACUNA_X}'"
    )
    sound.write_text(text + "seed: 12\ngeneration: {steps: '${twice:${seed}}', batch_size: '${generation.steps}'}\n")
    config = load_config(sound)
    assert config.output.path == "out/007/12/1.10"
    assert config.erasure.concepts[0].preserve[0] == "007"
    assert (config.generation.steps, config.generation.batch_size) == (24, 24)


def test_a_list_may_be_referred_to_whole(sound: Path):
    sound.write_text(
        sound.read_text().replace("{name: knife}", "{name: knife, preserve: '${erasure.concepts[0].preserve}'}")
    )
    assert load_config(sound).erasure.concepts[1].preserve == ["tiger", "lion", "dog"]


@pytest.mark.parametrize("text", ["${", "${}", "${{x}}", "${amount}", "a ${amount} b", "${x:1}", "${a b}", "$${x}"])
@pytest.mark.parametrize("key", ["generation.negative_prompt", "prompts.values.animal[1]", "erasure.concepts[1].name"])
def test_what_is_no_reference_says_how_it_is_escaped(key: str, text: str, sound: Path, tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        load_config(sound, [f"{key}={text}"])
    message, text = str(caught.value), f"a{text}" if key.endswith("name") else text
    assert f": {key}: " in message
    assert r"for the characters themselves write \${ (in double quotes \\${)" in message
    assert "\n" not in message
    config = load_config(sound, [f"{key}={text.replace('${', chr(92) + '${')}"])
    assert config.interpolations == {}
    assert text in str(config)
    (tmp_path / "again.yaml").write_text(to_public_yaml(config))
    assert load_config(tmp_path / "again.yaml") == config


def test_in_a_template_the_escape_leaves_a_field(sound: Path):
    sound.write_text(sound.read_text().replace('"a {animal} {place}"', r"""'\${animal} {place} \{'"""))
    with pytest.raises(ConfigError, match=r"prompts\.template: .*for braces that are no field"):
        load_config(sound)
    sound.write_text(sound.read_text().replace(r"\{'", "'"))
    assert load_config(sound).prompts.template == "${animal} {place} "
    sound.write_text(sound.read_text().replace(r"'\${animal} {place} '", r'"\\${animal} {place}"'))
    assert load_config(sound).prompts.template == "${animal} {place}"


def test_a_variable_that_is_not_set_is_named(sound: Path):
    with pytest.raises(
        ConfigError, match=r"generation\.negative_prompt: Environment variable 'LACUNA_UNSET' not found$"
    ):
        load_config(sound, ["generation.negative_prompt=${oc.env:LACUNA_UNSET}"])
