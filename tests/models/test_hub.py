"""Models and LoRAs of the hub: what is in the cache loads without it, and each of its refusals has its own sentence."""

import json
import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from pipeline.config.schema import AdapterConfig, ModelConfig
from pipeline.errors import ConfigError
from pipeline.models.adapters import safetensors_file
from pipeline.models.find import find_model
from pipeline.models.load import load_model
from tests import hub, tiny
from tests.models.test_adapters import LAYER, lora

NOBODY = "http://127.0.0.1:9"
ANSWERS = {
    "gated": (403, {"X_Error_Code": "GatedRepo"}, "is gated: accept its terms at https://huggingface.co/o/n and set"),
    "absent": (404, {"X_Error_Code": "RepoNotFound"}, "is not on the hub (or private: set HF_TOKEN), nor here"),
    "revision": (404, {"X_Error_Code": "RevisionNotFound"}, "has no revision 'v9' on the hub"),
    "limited": (429, {"Retry_After": "0"}, "cannot be had now: the hub limits how often it is asked (429)"),
    "token": (403, {}, "cannot be read: the hub does not accept HF_TOKEN for it (403)"),
    "down": (503, {"Retry_After": "0"}, "cannot be had now: the hub is out of order (503)"),
}


def model() -> None:
    find_model(ModelConfig(path="o/n", revision="v9"))


def adapter() -> None:
    safetensors_file("model.adapters[0].path: o/n", "o/n", "v9")


def refusal(ask: Callable[[], None]) -> str:
    with pytest.raises(ConfigError) as caught:
        ask()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ask", [model, adapter])
def test_every_answer_has_a_sentence_of_its_own(
    ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    hub.use(tmp_path, monkeypatch)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)  # to where caplog hears it
    told = {"offline": refusal(ask)}
    assert "is not here, and HF_HUB_OFFLINE keeps from asking the hub" in told["offline"]
    for name, (status, headers, expected) in ANSWERS.items():
        with monkeypatch.context() as patch, hub.answering(status, patch, **headers):
            told[name] = refusal(ask)
        assert f"path: o/n {expected}" in told[name]
    hub.online(NOBODY, monkeypatch)
    told["nobody"] = refusal(ask)
    assert "is not here, and the hub cannot be reached" in told["nobody"]
    assert len(set(told.values())) == len(told)
    waits = {"Rate limited"} if ask is model else set()  # what lists an adapter's files is tried once
    assert {message.split(".")[0] for message in caplog.messages} == waits, "of its tries nothing else is said"


@pytest.mark.parametrize("place", ["offline", "nobody", "limited", "down"])
def test_a_lora_in_the_cache_needs_no_hub(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hub.use(tmp_path, monkeypatch)
    hub.put_file(tmp_path, "someone/lora", "main", "README.md", b"how it was trained")
    file = hub.put_file(tmp_path, "someone/lora", "main", "sub/lora.safetensors", save(lora()))
    if place in ANSWERS:
        status, headers, _ = ANSWERS[place]
        around = hub.answering(status, monkeypatch, **headers)
    else:
        around = nullcontext()
    if place == "nobody":
        hub.online(NOBODY, monkeypatch)
    with around:
        config = ModelConfig(path=tiny.path(), adapters=[AdapterConfig(path="someone/lora")])
        cached = load_model(config, torch.device("cpu"))
        local = ModelConfig(path=tiny.path(), adapters=[AdapterConfig(path=str(file))])
        here = load_model(local, torch.device("cpu"))
    assert cached.revision == here.revision
    name = f"{LAYER}.weight"
    assert torch.equal(cached.pipe.unet.get_parameter(name), here.pipe.unet.get_parameter(name))


def test_a_cache_with_several_files_asks_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hub.use(tmp_path, monkeypatch)
    for name in ("a.safetensors", "b.safetensors"):
        hub.put_file(tmp_path, "o/n", "v9", name, save(lora()))
    assert "holds 2 .safetensors files; download the one to use and give its path" in refusal(adapter)


def test_a_model_of_which_the_cache_holds_the_index_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hub.use(tmp_path, monkeypatch)
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    hub.put_file(tmp_path, "o/n", "v9", "model_index.json", json.dumps(index).encode())
    told = refusal(lambda: load_model(ModelConfig(path="o/n", revision="v9"), torch.device("cpu")))
    assert "o/n is not whole in the local cache: its model_index.json names unet, which is not there" in told
