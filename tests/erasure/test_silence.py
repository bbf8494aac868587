"""What would run and do nothing is refused in a line: steps that find no weight, hooks that nothing calls, no maps."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from pipeline.concepts.concept import Concept
from pipeline.config.options import read_options
from pipeline.config.schema import ConceptConfig, ErasureConfig, ModelConfig, StepConfig
from pipeline.erasure.method import Method, Steering
from pipeline.erasure.methods.esd import ESD
from pipeline.erasure.methods.esd.options import ESDOptions
from pipeline.erasure.recipe import compile_recipe, recipe_steps
from pipeline.errors import ConfigError, SelfCheckError
from pipeline.generation.engine import Engine
from pipeline.models.load import Model, load_model
from pipeline.models.sd import StableDiffusion
from pipeline.registry import METHODS, load_class
from tests import tiny, tiny_families
from tests.erasure.conftest import config
from tests.models import broken

CAT = Concept(name="cat", anchor="dog")


class Deaf(StableDiffusion):
    """A family that opens no layer and names no weight that text enters."""

    def text_projections(self):
        return []

    def attach(self, state):
        return []


@pytest.fixture(scope="module")
def deaf() -> Model:
    model = load_model(ModelConfig(path=tiny.path()), torch.device("cpu"))
    return replace(model, family=Deaf(model.pipe, model.device))


def build(model: Model, name: str, concepts: tuple[Concept, ...] = (CAT,), **options) -> Method:
    method: type[Method] = load_class("method", name, METHODS, Method)
    return method(model, concepts, read_options("options", name, method.Options, options), label=name)


@pytest.mark.parametrize(("name", "kind"), [("uce", "key or value or context"), ("rece", "key or value or context"),
                                            ("speed", "key or value")])  # fmt: skip
def test_an_edit_that_finds_no_projection(name: str, kind: str, deaf: Model):
    with pytest.raises(ConfigError, match=f"^{name}: its unet has no layer of the kind {kind} that text enters, so"):
        build(deaf, name).edit()


@pytest.mark.parametrize("variant", ["x", "x-strict"])
def test_a_training_that_finds_no_weight(variant: str, deaf: Model):
    with pytest.raises(ConfigError, match=f"^esd: the model has no weight that the variant {variant} trains; expected"):
        ESD(deaf, (CAT,), ESDOptions(variant=variant), label="esd").train()


def test_a_weight_that_takes_no_part_is_not_trained(tmp_path: Path):
    model = load_model(ModelConfig(path=tiny.path()), torch.device("cpu"))
    model.pipe.unet.add_module("spare", torch.nn.Linear(2, 2))
    options = ESDOptions(variant="u", iterations=1, steps=2)
    with pytest.raises(ConfigError, match=r"^esd: unet\.spare\.weight takes no part in the prediction; another"):
        ESD(model, (CAT,), options, label="esd").train().iterate(0)


class Nothing(Method):
    """Finds nothing to edit."""

    def edit(self):
        return {}


class Misspelt(Method):
    """Means to condition."""

    def conditon(self, prompts):
        return prompts


def test_a_method_without_a_hook():
    settings = config(StepConfig(method=f"{__name__}:Misspelt"))
    with pytest.raises(
        ConfigError,
        match=r":Misspelt' would do nothing: it defines none of edit, .*, steer \(did you mean 'condition'\?\)$",
    ):
        recipe_steps(settings, StableDiffusion)


def test_a_method_without_options_takes_none():
    settings = config(StepConfig(method=f"{__name__}:Nothing", options={"strength": 1}))
    with pytest.raises(ConfigError, match=r"options\.strength: .*:Nothing has no such option; it has none$"):
        recipe_steps(settings, StableDiffusion)


def test_an_edit_of_nothing():
    settings = config(StepConfig(method=f"{__name__}:Nothing"))
    with pytest.raises(ConfigError, match=r"^erasure\.recipe\[0\]: nothing edits no weight of this model; leave it"):
        compile_recipe(settings, load_model(settings.model, torch.device("cpu")))


@pytest.mark.parametrize(
    ("name", "options", "steering", "hook"),
    [
        ("cease", {}, "CEASESteering", "switch"),
        ("cease", {"attention": 0.0}, "WatchfulSteering", "blend"),
        ("adavd", {}, "AdaVDSteering", "text"),
        ("safree", {}, "SAFREESteering", "text"),
    ],
)
def test_layers_that_are_not_opened(name: str, options: dict, steering: str, hook: str, deaf: Model):
    engine = Engine(config(), deaf, [build(deaf, name, **options)])
    with pytest.raises(ConfigError, match=rf"^erasure\.recipe: {steering} acts in `{hook}`, which is never called on"):
        engine.rehearse()
    with pytest.raises(ConfigError, match=rf"^erasure\.recipe: {steering} acts in `{hook}`, which is never called on"):
        list(engine.generate([tiny.sample(i, "a cat") for i in range(4)]))


class Elsewhere(Steering):
    """Acts in joint attention."""

    def joint(self, layer, image, text, output):
        return output


class Misplaced(Method):
    """For SD3 and FLUX, and says so nowhere."""

    def steer(self, prompts, sampling):
        return Elsewhere()


def test_a_hook_that_this_architecture_never_calls(model: Model):
    misplaced = [Misplaced(model, (CAT,), None, label="misplaced")]
    with pytest.raises(ConfigError, match=r"Elsewhere acts in `joint`, which is never called on Stable Diffusion 1\.x"):
        Engine(config(), model, misplaced).rehearse()
    other = load_model(ModelConfig(path=tiny_families.path("sd3")), torch.device("cpu"))
    Engine(config(), other, [Misplaced(other, (CAT,), None, label="misplaced")]).rehearse()


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model whose only cross-attention is at the resolution of its latents, where maps hardly see objects."""
    folder = broken.copy("sd", tmp_path_factory.mktemp("fine"))
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        mid_block_type="UNetMidBlock2D", cross_attention_dim=128, attention_head_dim=(2, 4), norm_num_groups=8,
    )  # fmt: skip
    broken.part(folder, "unet", unet)
    return broken.load(folder)


def sized(side: int, steps: int):
    settings = config()
    settings.generation.size, settings.generation.steps, settings.generation.batch_size = [side, side], steps, 1
    return settings


def test_cease_where_no_layer_shows_a_place(fine: Model):
    cease = build(fine, "cease", unlisted=False, context=False)
    Engine(sized(32, 3), fine, [cease]).rehearse()  # 8 x 8 latents: the finest layer is coarse enough
    engine = Engine(sized(160, 3), fine, [cease])
    message = r"no layer .* of at most 1,024 positions, and in latents of 40x40 it has none; choose another generation"
    with pytest.raises(ConfigError, match=message):
        engine.rehearse()
    with pytest.raises(ConfigError, match=message):
        list(engine.generate([tiny.sample(0, "a cat", width=160, height=160)]))
    Engine(sized(160, 1), fine, [cease]).rehearse()  # one step is switched everywhere
    style = type(cease)(fine, (replace(CAT, everywhere=True),), cease.options, label="cease")
    Engine(sized(160, 3), fine, [style]).rehearse()  # and what is everywhere needs no place


def test_cease_where_no_layer_can_be_listened_to(fine: Model):
    listening = build(fine, "cease", unlisted=False, context=False, attention=0.9)
    with pytest.raises(ConfigError, match=r"no layer of the model can be listened to: of those of at most 16"):
        Engine(sized(32, 3), fine, [listening]).rehearse()


def test_a_rehearsal_takes_two_steps_and_names_a_concept_of_each_method(model: Model):
    rows = []
    hook = model.pipe.unet.register_forward_hook(lambda unet, given, made: rows.append(len(made[0])))
    two = (replace(CAT, name="night", everywhere=True), Concept(name="tree"))
    cat, style = build(model, "cease"), build(model, "adavd", concepts=two)
    settings = config()
    settings.generation.steps = 5
    Engine(settings, model, [cat, style]).rehearse()
    assert rows == [2 * 2] * 2  # "a cat" and "a tree", guided
    Engine(settings, model, []).rehearse()
    hook.remove()
    assert len(rows) == 2


def listed(*names: str) -> ErasureConfig:
    step = StepConfig(method="uce", options={"lamb": 1000})
    return ErasureConfig(concepts=[ConceptConfig(name=name) for name in names], recipe=[step])


@pytest.mark.slow
def test_the_entry_of_a_list_that_spoils_its_edit_is_named():
    """The diorama has seen no digit: "007" is refused at every lamb, alone and beside others."""
    settings = tiny.config("diorama", erasure=listed("cat", "007"))
    model = load_model(settings.model, torch.device("cpu"))
    before = {p.name: p.weight.clone() for p in model.family.text_projections()}
    with pytest.raises(SelfCheckError) as caught:
        compile_recipe(settings, model)
    message = str(caught.value)
    assert message.startswith("erasure.recipe[0]: uce moved everything")
    assert message.endswith("; '007' is refused alone too, and the others are not: leave it out")
    assert all(torch.equal(p.weight, before[p.name]) for p in model.family.text_projections())
