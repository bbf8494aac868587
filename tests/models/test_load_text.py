"""Of a model as much is loaded as tells what words mean, and says the same as the whole."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.config.schema import AdapterConfig, DType, ModelConfig
from pipeline.errors import ConfigError
from pipeline.models.load import load_model, load_text
from pipeline.models.sd import StableDiffusion
from tests import hub, tiny, tiny_families

CPU = torch.device("cpu")
TEXTS = ["a cat", "a photo of a dog on the beach", "a qwertz"]


def path_of(family: str) -> Path:
    return Path(tiny.path() if family == "sd" else tiny_families.path(family))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny pipeline that a test may damage."""
    return Path(shutil.copytree(tiny.path(), tmp_path / "model"))


def refusal(path: Path | str, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        load_text(ModelConfig(path=str(path), **options), CPU)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [DType.float32, DType.bfloat16])
@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "sd3-without-t5", "flux", "schnell"])
def test_words_mean_what_they_mean_to_the_whole_model(family: str, dtype: DType):
    config = ModelConfig(path=str(path_of(family)), dtype=dtype)
    text, whole = load_text(config, CPU), load_model(config, CPU).family
    assert torch.equal(text.summaries(TEXTS), whole.summaries(TEXTS))
    assert text.pieces(TEXTS) == whole.pieces(TEXTS)
    assert text.dtype == whole.dtype
    assert [(s.offset, s.length) for s in text.streams] == [(s.offset, s.length) for s in whole.streams]
    networks = {name: part for name, part in text.pipe.components.items() if isinstance(part, nn.Module)}
    assert networks.keys() == {name for name, part in whole.pipe.components.items() if isinstance(part, nn.Module)}
    valued = {name for name, part in networks.items() if not all(p.is_meta for p in part.parameters())}
    assert valued == set(text.summary_networks)
    assert not any(p.requires_grad for part in networks.values() for p in part.parameters())


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_no_weights_of_other_networks_are_read(family: str, tmp_path: Path):
    folder = Path(shutil.copytree(path_of(family), tmp_path / "model"))
    config = ModelConfig(path=str(folder))
    whole = load_model(config, CPU).family.summaries(TEXTS)
    own = load_text(config, CPU).summary_networks
    for file in folder.glob("*/*.safetensors"):
        if file.parent.name not in own:
            file.unlink()
    assert torch.equal(load_text(config, CPU).summaries(TEXTS), whole)
    with pytest.raises(ConfigError):
        load_model(config, CPU)


def test_other_networks_of_the_hub_are_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hub.use(tmp_path, monkeypatch)
    for file in Path(tiny.path()).rglob("*"):
        name = file.relative_to(tiny.path()).as_posix()
        if file.is_file() and not name.startswith(("unet/diff", "vae/diff")):
            hub.put_file(tmp_path, "o/n", "main", name, file.read_bytes())
    text = load_text(ModelConfig(path="o/n"), CPU)
    assert torch.equal(text.summaries(TEXTS), load_text(ModelConfig(path=tiny.path()), CPU).summaries(TEXTS))


def test_a_lora_of_the_text_encoder_is_heard(tmp_path: Path):
    plain = load_text(ModelConfig(path=tiny.path()), CPU)
    stem = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    torch.manual_seed(0)
    lora = {f"{stem}.lora_A.weight": torch.randn(2, 128), f"{stem}.lora_B.weight": torch.randn(128, 2)}
    save_file(lora, tmp_path / "lora.safetensors")
    config = ModelConfig(path=tiny.path(), adapters=[AdapterConfig(path=str(tmp_path))])
    changed = load_text(config, CPU).summaries(TEXTS)
    assert not torch.equal(changed, plain.summaries(TEXTS))
    assert torch.equal(changed, load_model(config, CPU).family.summaries(TEXTS))


def test_what_is_not_whole_is_refused_in_a_line(folder: Path):
    (folder / "unet/config.json").unlink()
    assert "is not whole: its model_index.json names unet, which has no config.json" in refusal(folder)
    (folder / "unet/config.json").write_text('{"block_out_channels": "wide"}')
    assert "no unet can be made of its config.json" in refusal(folder)
    (folder / "text_encoder/model.safetensors").unlink()
    shutil.copy(Path(tiny.path()) / "unet/config.json", folder / "unet/config.json")
    assert "text_encoder" in refusal(folder)


def test_parts_that_do_not_belong_together_are_refused(folder: Path):
    config = folder / "unet/config.json"
    config.write_text(config.read_text().replace('"cross_attention_dim": 128', '"cross_attention_dim": 64'))
    assert "its unet's cross_attention_dim is 64; its other parts need 128" in refusal(folder)


class Looking(StableDiffusion):
    """Asks a network of which its base tells nothing."""

    def summaries(self, texts: Sequence[str]) -> Tensor:
        weight: Tensor = self.pipe.unet.conv_in.weight
        return super().summaries(texts) + weight.sum()


class Telling(Looking):
    summary_networks = ()


def test_a_family_that_tells_too_few_networks_is_refused_and_one_that_tells_none_is_loaded_whole():
    assert "its text encoder cannot be used" in refusal(tiny.path(), family=f"{__name__}:Looking")
    config = ModelConfig(path=tiny.path(), family=f"{__name__}:Telling")
    assert torch.equal(load_text(config, CPU).summaries(TEXTS), load_model(config, CPU).family.summaries(TEXTS))
