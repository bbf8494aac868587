"""Paths by one rule: in a file from the file's folder, on the command line from where you stand."""

from pathlib import Path

import pytest

from pipeline.config import identity, load_config, to_public_dict
from pipeline.config.places import whole_paths
from pipeline.errors import ConfigError

CONFIG = """\
model: {path: ./models/mine, dtype: float32, adapters: [{path: style.safetensors}]}
erasure:
  lists: [list.yaml]
  concepts: [{name: cat}]
  recipe: [{method: weights, options: {path: edits/one.safetensors}}]
prompts: {source: prompts.txt}
generation: {size: [64, 64], compile: none}
output: {path: out/x}
"""
READ = {
    "model.path": "./models/mine/",
    "model.adapters[0].path": "style.safetensors",
    "erasure.recipe[0].options.path": "edits/one.safetensors",
    "prompts.source": "prompts.txt",
    "erasure.lists": "[list.yaml]",
}


def folder(path: Path) -> Path:
    """A folder with a config and all that it reads."""
    for name in ("models/mine/model_index.json", "style.safetensors", "edits/one.safetensors", "prompts.txt"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("{}")
    (path / "list.yaml").write_text(f"concepts: [{{name: {path.name}}}]")
    (path / "config.yaml").write_text(CONFIG)
    return path


def read(config) -> list[str]:
    step = config.erasure.recipe[0].options["path"]
    return [
        config.model.path,
        config.model.adapters[0].path,
        step,
        config.prompts.source,
        config.erasure.concepts[1].name,
    ]


def expected(path: Path) -> list[str]:
    names = ("models/mine", "style.safetensors", "edits/one.safetensors", "prompts.txt")
    return [*(str(path / name) for name in names), path.name]


def test_a_file_is_read_from_its_folder_and_the_command_line_from_where_you_stand(tmp_path: Path, monkeypatch):
    there, here = folder(tmp_path / "there"), folder(tmp_path / "here")
    monkeypatch.chdir(here)
    config = load_config("../there/config.yaml")
    assert read(config) == expected(there)
    given = load_config("../there/config.yaml", [f"{key}={value}" for key, value in READ.items()])
    assert read(given) == expected(here)
    assert config.output.path == "out/x"
    assert whole_paths(config) == {
        **dict(
            zip(["model.path", "model.adapters[0].path", "erasure.recipe[0].options.path"], read(config), strict=False)
        ),
        "prompts.source": str(there / "prompts.txt"),
        "output.path": str(here / "out/x"),
    }


def test_the_identity_knows_what_was_written_and_not_where_it_lies(tmp_path: Path, monkeypatch):
    there, here = folder(tmp_path / "a/same"), folder(tmp_path / "b/same")
    one, other = load_config(there / "config.yaml"), load_config(here / "config.yaml")
    assert identity(one, "s") == identity(other, "s")
    fields = identity(one, "s").fields
    assert fields["model.path"] == "./models/mine"
    assert fields["model.adapters[0].path"] == "style.safetensors"
    assert fields["erasure.recipe[0].options"] == {"path": "edits/one.safetensors"}
    assert to_public_dict(one)["model"]["path"] == "./models/mine"
    monkeypatch.chdir(there)  # a name that both may read
    assert identity(load_config(there / "config.yaml", ["model.path=./models/mine"]), "s") == identity(one, "s")


def test_a_name_of_the_hub_is_a_folder_only_where_a_model_lies(tmp_path: Path, monkeypatch):
    there = folder(tmp_path / "there")
    (there / "config.yaml").write_text(CONFIG.replace("./models/mine", "models/mine"))
    assert load_config(there / "config.yaml").model.path == str(there / "models/mine")
    (there / "models/mine/model_index.json").unlink()
    assert load_config(there / "config.yaml").model.path == "models/mine"
    monkeypatch.chdir(folder(tmp_path / "here"))
    with pytest.raises(ConfigError, match=r"model\.path: .*there/models/mine is not there; .*here/models/mine is, but"):
        load_config(there / "config.yaml")  # other weights of that name may lie on the hub
    assert load_config(there / "config.yaml", ["model.path=models/mine"]).model.path == str(
        tmp_path / "here/models/mine"
    )


def test_what_lies_where_you_stand_only_is_told(tmp_path: Path, monkeypatch):
    there, here = folder(tmp_path / "there"), folder(tmp_path / "here")
    (there / "style.safetensors").unlink()
    monkeypatch.chdir(here)
    with pytest.raises(ConfigError) as caught:
        load_config(there / "config.yaml")
    name = "style.safetensors"
    assert str(caught.value) == (
        f"{there}/config.yaml: model.adapters[0].path: {there}/{name} is not there; {here}/{name} is, but what a "
        f"config names is relative to the config's folder: write {here}/{name}, or give "
        f"model.adapters[0].path={name} on the command line"
    )
    monkeypatch.chdir(there)
    with pytest.raises(ConfigError, match=rf"erasure\.lists\[0\]: {there}/x\.yaml: no such erasure list .*{there}\)$"):
        load_config(there / "config.yaml", ["erasure.lists=[x.yaml]"])
