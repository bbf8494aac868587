"""8 bits: which layers, that rows know nothing of each other, and that nothing is edited afterwards."""

import pytest
import torch
from torch import nn

from pipeline.config.schema import ConceptConfig, DType
from pipeline.config.sections.generation import Quantize
from pipeline.models.load import Model, load_model
from pipeline.models.quantize import is_quantized, quantize_denoiser
from tests import tiny, tiny_families
from tests.erasure.conftest import uce_step

PATHS = {"sd": tiny.path, **{name: lambda name=name: tiny_families.path(name) for name in ("sdxl", "sd3", "flux")}}


def load(family: str) -> Model:
    return load_model(tiny.config(PATHS[family]()).model, torch.device("cpu"))


@pytest.mark.parametrize("family", PATHS)
def test_layers_of_blocks_are_quantized_and_what_modulates_them_is_not(family: str):
    denoiser = load(family).family.denoiser
    linear = {name: module for name, module in denoiser.named_modules() if isinstance(module, nn.Linear)}
    chosen = {name for name, module in linear.items() if is_quantized(module, name)}
    for name in linear:
        attention = any(part in name.split(".")[-2:] for part in ("to_q", "to_k", "to_v", "add_k_proj"))
        assert not attention or name in chosen, name
    assert not {name for name in chosen if "norm" in name or "emb" in name}
    assert not is_quantized(nn.Linear(24, 32), "blocks.0.to_q")
    assert quantize_denoiser(denoiser, Quantize.none) == 0


@pytest.fixture
def lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchao, which quantizes only where a card can compute: here torch's own product on the CPU does."""
    pytest.importorskip("torchao")
    monkeypatch.setattr("torchao.quantization.quant_api._check_hardware_support", lambda granularities: None)


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_a_quantized_denoiser_predicts_nearly_the_same_and_row_by_row(family: str, lifted: None):
    model = load(family)
    denoiser = model.family.denoiser.to(torch.bfloat16)
    conditioning = model.family.encode(["a cat", "a dog on the beach", "a lion"])
    latents = torch.randn(3, *model.family.latent_shape(32, 32)).bfloat16()
    step = torch.tensor(500)

    def predict() -> torch.Tensor:
        with torch.inference_mode():
            return model.family.predict(latents, step, conditioning, 4.0)

    before = predict()
    quantized = quantize_denoiser(denoiser, Quantize.fp8)
    assert quantized == sum(type(module.weight).__name__ == "Float8Tensor" for module in denoiser.modules()
                            if isinstance(module, nn.Linear)) > 0  # fmt: skip
    found = predict()
    off = (found.float() - before.float()).norm() / before.float().norm()
    assert 0 < off < 0.2
    assert torch.equal(found, predict())
    latents[2] = 50 * torch.randn_like(latents[2])  # a scale of the whole batch would be another
    assert torch.equal(found[:2], predict()[:2])


def test_a_session_edits_nothing_that_is_quantized(lifted: None, monkeypatch: pytest.MonkeyPatch):
    from pipeline.session import Session

    monkeypatch.setattr("pipeline.session.check_kernels_here", lambda config, device: None)  # there is no card
    config = tiny.config(tiny.path())
    config.model.dtype = DType.bfloat16
    config.generation.quantize = Quantize.fp8
    config.cluster.device = "cpu"
    config.erasure.concepts = [ConceptConfig(name="cat", aliases=["kitten"], anchor="dog", preserve=["tiger", "lion"])]
    config.erasure.recipe = [uce_step()]
    session = Session(config, device="cpu")
    recipe = session.compile()
    samples = [tiny.sample(i, text) for i, text in enumerate(("a cat", "a dog", "a tiger"))]

    def draw(recipe) -> list[bytes]:
        return [batch.images.tobytes() for batch in session.engine(recipe).generate(samples)]

    plain, erased = draw(None), draw(recipe)
    assert plain != erased
    assert draw(None) == plain
    assert draw(recipe) == erased
