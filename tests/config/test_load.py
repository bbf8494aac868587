"""What a config that is accepted becomes: typed, merged, public without secrets, reloadable."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline.config import identity, identity_difference, load_config, to_public_dict, to_public_yaml
from pipeline.config.identity import leaves
from pipeline.config.schema import DType, ImageFormat
from pipeline.config.sections.audit import CaptionPolicy, Policy
from pipeline.errors import ConfigError
from pipeline.models.settle import settle

CONFIGS = Path(__file__).parents[2] / "configs"
SETTLED = ("model.dtype=float32", "generation.size=[64, 64]", "generation.compile=none")


def load(path, overrides=()):
    return load_config(path, [*SETTLED, *overrides])


def test_the_sound_config_is_typed(sound):
    config = load(sound, ["output.image_format=webp-lossless", "generation.guidance=7", "model.dtype=bfloat16"])
    assert config.output.image_format is ImageFormat.webp_lossless
    assert config.model.dtype is DType.bfloat16
    assert isinstance(config.generation.guidance, float)
    assert config.erasure.concepts[0].aliases == ["kitten", "tabby"]
    assert config.prompts.values == {"animal": ["cat", "dog"], "place": ["indoors", "outside"]}
    assert pickle.loads(pickle.dumps(config)) == config


def test_overrides_set_merge_empty_and_index(sound):
    overrides = ["generation={steps: 3}", "generation.size=[128,64]", "erasure.recipe[1].options={a: 1}", "audit={}"]
    config = load(sound, overrides)
    assert (config.generation.steps, config.generation.size) == (3, [128, 64])
    assert config.erasure.recipe[1].options == {"a": 1}
    assert config.erasure.recipe[1].concepts == ["cat"]
    assert config.audit.detectors == []


def test_without_a_detector_nothing_is_judged(sound):
    assert load(sound).audit.policy is Policy.quarantine
    assert load(sound, ["audit={}"]).audit.policy is Policy.keep


def test_captions_name_the_anchor_where_somebody_can_see_it(sound):
    assert load(sound).audit.captions is CaptionPolicy.anchor
    assert load(sound, ["audit={}"]).audit.captions is CaptionPolicy.drop
    assert load(sound, ["audit={captions: keep}"]).audit.captions is CaptionPolicy.keep


def test_nothing_is_erased_of_a_list_only_where_that_is_written_out(sound, tmp_path):
    """A recipe that is absent and one that is empty are told apart, in a file, a list and an override."""
    text = "model: {path: diorama}\nprompts: {source: a.txt}\noutput: {path: out/x}\n"
    (tmp_path / "l.yaml").write_text("concepts: [{name: gun}]")
    sound.write_text(text + "erasure: {lists: [l.yaml]}\n")
    with pytest.raises(ConfigError, match=r"erasure.recipe: is absent.*\(gun\).*or recipe: \[\] where nothing is"):
        load(sound)
    assert load(sound, ["erasure.recipe=[]"]).erasure.recipe == []
    sound.write_text(text + "erasure: {concepts: [{name: cat}], recipe: []}\n")
    assert load(sound).erasure.recipe == []
    sound.write_text(text)
    assert load(sound).erasure.recipe == []  # no list: nothing was promised


def test_erasure_lists_follow_the_files_own_concepts(sound, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/a.yaml").write_text("description: x\nconcepts: [{name: gun, aliases: [pistol]}]")
    config = load(sound, ["erasure.lists=[lists/a.yaml]"])
    assert [concept.name for concept in config.erasure.concepts] == ["cat", "knife", "gun"]
    assert config.erasure.concepts[2].aliases == ["pistol"]


def test_urls_of_prompts_stay(sound):
    overrides = ["prompts.template=null", "prompts.values={}", "prompts.source=s3://bucket/x.parquet"]
    assert load(sound, overrides).prompts.source == "s3://bucket/x.parquet"


def test_a_variable_is_converted_to_the_type_of_its_field(sound, monkeypatch):
    monkeypatch.setenv("LACUNA_STEPS", "12")
    assert load(sound, ["generation.steps=${oc.env:LACUNA_STEPS}"]).generation.steps == 12


def test_a_value_that_looks_like_an_interpolation_is_taken_as_it_is(sound, monkeypatch):
    monkeypatch.setenv("LACUNA_WORD", "a${b}c")
    assert load(sound, ["generation.negative_prompt=${oc.env:LACUNA_WORD}"]).generation.negative_prompt == "a${b}c"


def test_secrets_stay_out_of_everything_that_is_written(sound, monkeypatch, tmp_path):
    monkeypatch.setenv("LACUNA_SECRET", "hunter2")
    (tmp_path / "l.yaml").write_text("concepts: [{name: gun}, {name: pill, aliases: ['${oc.env:LACUNA_SECRET}']}]")
    overrides = [
        "output.path=s3://bucket/${oc.env:LACUNA_SECRET}",
        "output.storage_options={secret_access_key: '${oc.env:LACUNA_SECRET}', region: eu}",
        "model.revision=${oc.env:LACUNA_SECRET}",
        f"erasure.lists=[{tmp_path}/l.yaml]",
    ]
    config = load(sound, overrides)
    assert config.output.storage_options["secret_access_key"] == "hunter2"
    config = replace(config, generation=replace(config.generation, batch_size=8))  # what prepare does
    public = to_public_yaml(config)
    named = identity(config, "source")
    assert "hunter2" not in public + str(named.fields)
    assert "storage_options" not in public
    assert "s3://bucket/${oc.env:LACUNA_SECRET}" in public
    monkeypatch.setenv("LACUNA_SECRET", "other")
    changed = identity(load(sound, overrides), "source")
    assert changed.digest != named.digest
    differing = identity_difference(named.fields, changed.fields)
    assert any(line.startswith("model.revision: ") for line in differing)


def test_the_public_form_loads_again_to_the_same(sound, tmp_path, monkeypatch):
    monkeypatch.setenv("LACUNA_PLACE", "out/y")
    (tmp_path / "l.yaml").write_text("concepts: [{name: gun}]")
    config = load(sound, [f"erasure.lists=[{tmp_path}/l.yaml]", "output.path=${oc.env:LACUNA_PLACE}", "seed=5"])
    (tmp_path / "again.yaml").write_text(to_public_yaml(config))
    again = load_config(tmp_path / "again.yaml")
    assert identity(again, "s") == identity(config, "s")
    assert again.output.path == "out/y"
    assert to_public_dict(again) == to_public_dict(config) == yaml.safe_load(to_public_yaml(config))


def test_the_identity_has_every_setting_that_is_classed_so(sound):
    config = load(sound)
    keys = [key for key, _, is_identity in leaves(config) if is_identity]
    assert {"model.path", "erasure.recipe[1].concepts", "output.quality", "seed"} <= set(keys)
    assert {*keys, "source", "semantics"} == identity(config, "s").fields.keys()


def test_identity_is_of_what_changes_bytes_and_of_nothing_else(sound):
    config = load(sound)
    named = identity(config, "source")
    for operational in (["output.path=else"], ["cluster.workers.max=9"], ["log_level=debug"], ["cluster.device=cpu"]):
        assert identity(load(sound, operational), "source") == named
    for changing in (["seed=1"], ["erasure.concepts[0].anchor=fox"], ["output.quality=90"], ["prompts.shuffle=true"]):
        changed = identity(load(sound, changing), "source")
        assert changed.digest != named.digest
        assert [line.split(":")[0] for line in identity_difference(named.fields, changed.fields)] == [
            changing[0].split("=")[0]
        ]
    assert identity(config, "other source").digest != named.digest
    assert identity_difference(named.fields, named.fields) == []


def test_identity_does_not_depend_on_where_files_lie(sound, tmp_path):
    """The same prompts and list, moved to another folder, are the same corpus."""
    (tmp_path / "l.yaml").write_text("concepts: [{name: gun}]")
    here = load(
        sound,
        [f"erasure.lists=[{tmp_path}/l.yaml]", "prompts.template=null", "prompts.values={}", "prompts.source=a.txt"],
    )
    there = tmp_path / "there"
    (there / "sub").mkdir(parents=True)
    (there / "sub/l.yaml").write_text("concepts: [{name: gun}]")
    (there / "c.yaml").write_text(sound.read_text())
    moved = load(
        there / "c.yaml",
        [f"erasure.lists=[{there}/sub/l.yaml]", "prompts.template=null", "prompts.values={}", "prompts.source=b.txt"],
    )
    assert identity(here, "s") == identity(moved, "s")


def test_the_identity_is_stable(sound):
    """A change of this digest makes every corpus refuse its resume: it must be meant, with SEMANTICS raised."""
    digest = identity(load(sound), "source").digest
    assert digest == "af5573530232c62446d5a20afd5d8fff55dcff68e220760dc6aaff37262f1e91"


def test_a_silent_setting_is_in_the_identity_where_it_is_given(sound):
    plain, given = identity(load(sound), "s"), identity(load(sound, ["model.family=my_family:Mine"]), "s")
    assert "model.family" not in plain.fields
    assert identity_difference(plain.fields, given.fields) == ['model.family: (absent) -> "my_family:Mine"']
    assert plain.digest != given.digest


def test_an_added_step_is_told_as_absent_before(sound):
    before = identity(load(sound), "s").fields
    after = identity(load(sound, ["erasure.recipe=[{method: uce}]"]), "s").fields
    assert 'erasure.recipe[1].method: "cease" -> (absent)' in identity_difference(before, after)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("seed", "12", 12),
        ("seed", "'+12'", 12),
        ("generation.guidance", "1e-3", 0.001),
        ("generation.guidance", "'2.5'", 2.5),
        ("prompts.shuffle", "'true'", True),
        ("model.revision", "3", "3"),
        ("model.revision", "null", None),
        ("cluster.shard_timeout", "60", 60.0),
        ("audit.detectors[0].thresholds", "{cat: 1}", {"cat": 1.0}),
        ("erasure.concepts[1].aliases", "[1984, 2.5]", ["1984", "2.5"]),
    ],
)
def test_what_fits_a_type_is_converted_to_it(key, text, value, sound):
    found = {key: value for key, value, _ in leaves(load(sound, [f"{key}={text}"]))}[key]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configs_load(path):
    from pipeline.prompts import Plan, open_source

    config = settle(load_config(path), "cpu")
    plan = Plan.build(config, open_source(config.prompts))
    assert plan.shard(0).samples
    assert config.erasure.concepts
    assert config.erasure.recipe


def test_the_quickstart_is_as_large_as_promised():
    from pipeline.prompts import Plan, open_source

    config = settle(load_config(CONFIGS / "quickstart.yaml"), "cpu")
    plan = Plan.build(config, open_source(config.prompts))
    assert (plan.samples, plan.shards, config.cluster.workers.max) == (512, 4, 2)


@pytest.mark.parametrize("path", sorted((CONFIGS / "erasure").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_lists_can_be_used(path, sound):
    config = load(sound, [f"erasure.lists=[{path}]", "erasure.concepts=[]", "erasure.recipe=[{method: uce}]"])
    assert config.erasure.concepts


def test_exceptions_pictographs_and_other_scripts_may_be_listed(sound):
    text = sound.read_text().replace("[kitten, tabby]", "[kitten, tabby, 🐱, 猫, قطة]")
    sound.write_text(
        text.replace("[tiger, lion, dog]", "[tiger, cat burglar, hot dog], keep: [cat burglar, copycat cat]")
    )
    cat = load_config(sound).erasure.concepts[0]
    assert cat.aliases[2:] == ["🐱", "猫", "قطة"]
    assert cat.keep == ["cat burglar", "copycat cat"]


def test_an_exception_may_be_a_word_of_another_concept(sound):
    text = sound.read_text().replace("{name: knife}", "{name: knife, aliases: [cat knife]}")
    sound.write_text(text.replace("anchor: dog", "anchor: dog, keep: [cat knife]"))
    assert len(load_config(sound).erasure.concepts) == 2


def test_what_one_concept_leaves_alone_another_may_claim_and_a_scene_may_imply_several(sound):
    text = sound.read_text()
    cat = "ignore: [party], keep: [cat o nine tails], implied: [picnic], anchor: dog"
    knife = "{name: knife, proven: [party], implied: [cat o nine tails, picnics]}"
    sound.write_text(text.replace("anchor: dog", cat).replace("{name: knife}", knife))
    assert load_config(sound).erasure.concepts[1].proven == ["party"]
