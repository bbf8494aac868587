"""Loading: what is found, what it is pinned to, and what each unusable model says."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from pipeline.config.schema import AdapterConfig, DType, ModelConfig
from pipeline.errors import ConfigError
from pipeline.models.find import find_model
from pipeline.models.load import load_model
from tests import tiny

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny pipeline that a test may damage."""
    return Path(shutil.copytree(tiny.path(), tmp_path / "model"))


def load(path, **options):
    return load_model(ModelConfig(path=str(path), **options), CPU)


def test_revision_is_a_digest_over_the_folders_bytes(folder: Path):
    first, again = load(folder).revision, load(folder).revision
    assert first == again
    assert first.startswith("sha256:")
    (folder / "notes.txt").write_text("not part of the pipeline")
    assert load(folder).revision == first
    settings = folder / "scheduler" / "scheduler_config.json"
    settings.write_text(settings.read_text().replace("0.012", "0.013"))
    assert load(folder).revision != first


def test_dtype_and_frozen_weights():
    model = load(tiny.path(), dtype=DType.bfloat16)
    assert model.dtype == model.family.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in model.pipe.unet.parameters())
    assert model.family.encode(["a cat"]).embeds.dtype == torch.bfloat16


def test_scheduler_by_name_with_options():
    model = load(tiny.path(), scheduler="EulerDiscreteScheduler", scheduler_options={"use_karras_sigmas": True})
    assert type(model.pipe.scheduler).__name__ == "EulerDiscreteScheduler"
    assert model.pipe.scheduler.config.use_karras_sigmas
    assert model.pipe.scheduler.config.beta_end == 0.012  # the model's own schedule stays


def test_adapter_is_fused_and_part_of_the_revision(tmp_path: Path):
    pipe = tiny.pipeline()
    pipe.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_k", "to_v"]))
    from peft.utils import get_peft_model_state_dict

    pipe.save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(pipe.unet), safe_serialization=True)
    plain = load(tiny.path())
    fused = load(tiny.path(), adapters=[AdapterConfig(path=str(tmp_path), weight=0.5)])
    assert fused.revision.startswith(plain.revision + "+sha256:")
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    assert not torch.equal(plain.pipe.unet.get_parameter(name), fused.pipe.unet.get_parameter(name))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "no/such/folder"}, "neither a folder here nor a hub id"),
        ({"path": "nobody/no-such-model"}, "is not here, and HF_HUB_OFFLINE keeps from asking the hub"),
        ({"scheduler": "EulerDiscretScheduler"}, "did you mean 'EulerDiscreteScheduler'?"),
        (
            {"scheduler_options": {"beta_sart": 1}},
            "model.scheduler_options.beta_sart: DDIMScheduler has no such option",
        ),
        ({"scheduler_options": {"beta_schedule": "odd"}}, "DDIMScheduler refuses them"),
        ({"revision": "main"}, "is a local folder, which has no revisions"),
        ({"adapters": [AdapterConfig(path="no/such/lora.safetensors")]}, "model.adapters[0].path: no/such/lora"),
    ],
)
def test_refusals(options: dict, message: str):
    with pytest.raises(ConfigError) as caught:
        load(**{"path": tiny.path(), **options})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_pipeline(tmp_path: Path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ConfigError, match=r"no model_index.json\); convert a single-file checkpoint"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["", "{not json", "[]", "\ud800"])
def test_a_broken_index(folder: Path, text: str):
    (folder / "model_index.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ConfigError, match=r"its model_index\.json is no JSON object"):
        load(folder)


def test_a_class_that_is_misspelt(folder: Path):
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDifusionPipeline"}))
    with pytest.raises(ConfigError, match=r"not supported \(did you mean 'StableDiffusionPipeline'\?\); expected"):
        load(folder)


def test_an_unsupported_pipeline_class(folder: Path):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "KandinskyPipeline"}))
    with pytest.raises(ConfigError, match="is a KandinskyPipeline, which is not supported; expected one of"):
        load(folder)


def write_code(path: Path, marker: Path, class_name: str) -> None:
    """Put a module there that leaves *marker* if anything runs it."""
    path.write_text(
        f"import pathlib\n"
        f"import diffusers\n"
        f"pathlib.Path({str(marker)!r}).touch()\n"
        f"{class_name} = type({class_name!r}, (diffusers.StableDiffusionPipeline,), {{}})\n"
    )


@pytest.mark.parametrize("class_name", [["my_pipe", "MyPipe"], ["pipeline", "StableDiffusionPipeline"], 3])
def test_a_pipeline_with_code_of_its_own_is_refused_and_not_run(folder: Path, tmp_path: Path, class_name):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": class_name}))
    for name in ("my_pipe.py", "pipeline.py"):
        write_code(folder / name, tmp_path / "ran", "MyPipe")
    with pytest.raises(
        ConfigError, match=r"its _class_name is .*, a pipeline with code of its own.*; expected"
    ) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("library", ["my_unet", None])
def test_a_part_with_code_of_its_own_is_refused_and_not_run(folder: Path, tmp_path: Path, library: str | None):
    """The index names a module of the model's folder for its UNet, or null beside a class of no library."""
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "unet": [library, "MyUNet"]}))
    for path in (
        folder / "unet" / "my_unet.py",
        folder / "unet" / "None.py",
        folder / "my_unet.py",
        folder / "None.py",
    ):
        write_code(path, tmp_path / "ran", "MyUNet")
    with pytest.raises(ConfigError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_code_that_nothing_names_is_not_run(folder: Path, tmp_path: Path):
    write_code(folder / "unet" / "my_unet.py", tmp_path / "ran", "MyUNet")
    load(folder)
    write_code(folder / "None.py", tmp_path / "ran", "MyUNet")  # the tiny pipeline's index has nulls, which come to it
    with pytest.raises(ConfigError, match=r"contains custom code in None\.py"):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_never_read(folder: Path):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ConfigError, match=r"has its weights in diffusion_pytorch_model\.bin alone, which is not read"):
        load(folder)


def test_an_adapter_of_another_model(tmp_path: Path):
    from safetensors.torch import save_file

    save_file({"unet.nothing.lora_A.weight": torch.ones(2, 3)}, tmp_path / "lora.safetensors")
    with pytest.raises(ConfigError, match="does not fit this model as a LoRA"):
        load(tiny.path(), adapters=[AdapterConfig(path=str(tmp_path))])


@pytest.mark.parametrize(
    ("size", "message"), [((30, 32), "width 30 is not a multiple of 4"), ((32, 4), "height 4 is below 8")]
)
def test_sizes_that_cannot_be_made(size: tuple[int, int], message: str):
    with pytest.raises(ConfigError, match=message):
        load(tiny.path()).family.latent_shape(*size)


@pytest.mark.parametrize("text", ["{not json", "[]"])
def test_a_broken_config_of_a_part_that_tells_the_size(folder: Path, text: str):
    (folder / "unet" / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"its unet/config\.json is no JSON object"):
        find_model(ModelConfig(path=str(folder))).part_config("unet")
