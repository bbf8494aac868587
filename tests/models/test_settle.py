"""What is "auto": the size is the model's own, the dtype the device's; a corpus that was begun keeps both."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.config import identity, is_settled, load_config
from pipeline.config.schema import DType
from pipeline.corpus import RunRecord, create_run_record, open_store
from pipeline.corpus.resume import follow
from pipeline.errors import ConfigError
from pipeline.models.dtype import fast_dtype
from pipeline.models.settle import as_begun, settle, settle_here
from pipeline.prompts import open_source
from tests import hub, tiny, tiny_families

CONFIG = """\
model: {{path: {model}}}
prompts: {{template: "a {{animal}}", values: {{animal: [cat, dog]}}}}
output: {{path: {output}}}
cluster: {{device: cpu}}
"""
LISTED = "erasure={concepts: [{name: cat, proven: [kitty]}], recipe: [{method: cease}]}"


def config(folder: Path, model: str, *overrides: str):
    (folder / "c.yaml").write_text(CONFIG.format(model=model, output=folder / "corpus"))
    return load_config(folder / "c.yaml", overrides)


def test_where_a_file_says_nothing_both_are_auto(tmp_path: Path):
    found = config(tmp_path, "diorama")
    assert (found.model.dtype, found.generation.size) == (DType.auto, "auto")
    assert not is_settled(found)
    with pytest.raises(ValueError, match="settle it first"):
        identity(found, "s")
    settled = settle(found)
    assert (settled.model.dtype, settled.generation.size) == (fast_dtype("cpu"), [64, 64])
    assert is_settled(settled)
    named = ("generation.size=[64, 64]", "generation.compile=none")
    spelt = config(tmp_path, "diorama", f"model.dtype={fast_dtype('cpu')}", *named)
    assert identity(settled, "s") == identity(spelt, "s")
    with pytest.raises(ConfigError, match=r"generation\.size: is big; expected \[width, height\] in pixels, or auto"):
        config(tmp_path, "diorama", "generation.size=big")


def test_a_decoder_without_tiles_is_the_same_corpus_said_or_not_and_one_that_was_begun_with_it_said_goes_on(
    tmp_path: Path,
):
    plain, said, tiled = (
        settle(config(tmp_path, "diorama", *more))
        for more in ([], ["generation.vae_tiling=false"], ["generation.vae_tiling=true"])
    )
    assert identity(said, "s") == identity(plain, "s") != identity(tiled, "s")
    older = identity(replace(plain, generation=replace(plain.generation, vae_tiling=False)), "s")
    assert older.fields == {**identity(plain, "s").fields, "generation.vae_tiling": False}
    for begun in (older, identity(plain, "s")):
        for given in (plain, said):
            assert identity(as_begun(given, begun.fields), "s") == begun
        assert identity(as_begun(tiled, begun.fields), "s") == identity(tiled, "s")
    assert identity(as_begun(plain, identity(tiled, "s").fields), "s") == identity(plain, "s")  # another corpus


@pytest.mark.parametrize("family", [None, *tiny_families.FAMILIES])
def test_the_size_is_what_the_pipeline_itself_would_draw(family: str | None, tmp_path: Path):
    import diffusers

    path = tiny.path() if family is None else tiny_families.path(family)
    pipe = diffusers.DiffusionPipeline.from_pretrained(path)
    side = getattr(pipe, "default_sample_size", None) or pipe.unet.config.sample_size
    assert settle(config(tmp_path, path)).generation.size == [side * pipe.vae_scale_factor] * 2


def test_of_a_model_on_the_hub_two_files_tell_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    hub.use(tmp_path / "hub", monkeypatch)
    hub.put(tmp_path / "hub", "owner/sdxl", "main", "StableDiffusionXLPipeline")
    found = config(tmp_path, "owner/sdxl")
    assert settle_here(found).generation.size == "auto"
    assert main(["show", str(tmp_path / "c.yaml")]) == 0
    shown = capsys.readouterr().out
    assert "  size: auto\n" in shown
    assert shown.endswith("# identity: settled when the run begins\n")
    assert main(["plan", "--no-measure", str(tmp_path / "c.yaml")]) == 0
    planned = capsys.readouterr().out
    assert "identity  settled when the run begins\n" in planned
    assert "of the model's own size (auto)" in planned
    assert "model     owner/sdxl on the hub\n" in planned
    files = {"unet": {"sample_size": [96, 128]}, "vae": {"block_out_channels": [1, 2, 3, 4]}}
    for part, values in files.items():
        hub.put_file(tmp_path / "hub", "owner/sdxl", "main", f"{part}/config.json", json.dumps(values).encode())
    assert settle(found).generation.size == [1024, 768]
    hub.put_file(tmp_path / "hub", "owner/sdxl", "main", "unet/config.json", b"{}")
    with pytest.raises(ConfigError, match=r"generation\.size: auto is the model's own, and owner/sdxl tells none in"):
        settle(found)


def test_what_was_begun_keeps_both(tmp_path: Path):
    begun = {"model.dtype": "float16", "generation.size": [128, 64]}
    found = as_begun(config(tmp_path, "diorama"), begun)
    assert (found.model.dtype, found.generation.size) == (DType.float16, [128, 64])
    named = config(tmp_path, "diorama", "generation.size=[64, 64]")
    assert as_begun(named, begun).generation.size == [64, 64]


@pytest.mark.parametrize("overrides", [[], ["model.dtype=float32", "generation.size=[64, 64]"]])
def test_proved_words_are_those_of_the_corpus_that_was_begun_whatever_else_is_settled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str]
):
    found = config(tmp_path, "diorama", LISTED, *overrides)
    cat = replace(found.erasure.concepts[0], proven=["kitty", "tomcat"], implied=["whiskers"])
    begun = settle(replace(found, erasure=replace(found.erasure, concepts=[cat])))
    named = identity(begun, open_source(begun.prompts).fingerprint)
    record = RunRecord(
        digest=named.digest, identity=named.fields, config={}, batch_size=1, recipe={}, model_revision="r",
        environment={}, samples=1, shards=1, samples_per_shard=1,
    )  # fmt: skip
    store = open_store(found.output.path)
    create_run_record(store, record)
    assert follow(found, store) == begun
    command = ["show", str(tmp_path / "c.yaml"), LISTED, *overrides]
    assert main(command) == 0
    assert capsys.readouterr().out.endswith(f"# identity: {named.digest}\n")
    other = replace(found, erasure=replace(found.erasure, concepts=[replace(cat, proven=["moggy"])]))
    assert follow(other, store).erasure.concepts[0].proven == ["moggy"], "it is another list"
