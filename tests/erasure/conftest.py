"""A tiny model, an erasure list over its words, and recipes compiled on it."""

import pytest
import torch

from pipeline.config.schema import ConceptConfig, Config, ErasureConfig, ModelConfig, StepConfig
from pipeline.models.load import Model, load_model
from tests import tiny
from tests.erasure import tiny_oracle

# Texts in the tiny tokenizer's own words: in its few dimensions an edit spills over to what it was not told to keep.
KEEP = ["a house by a road", "a bowl of fruit", "two people talking", "mountains at night", "a tree", "the red car"]

# An ESD that passes the self-check on the tiny model, whose few dimensions let an edit spill over.
QUICK_ESD = {
    "variant": "x-strict", "iterations": 24, "lr": 0.002, "batch_size": 4, "steps": 4, "reuse": 4, "preserve": 4.0,
    "keep": KEEP[:4],
}  # fmt: skip


def uce_step(**options) -> StepConfig:
    return StepConfig(method="uce", options={"keep": KEEP, "templates": ["{}", "a {}", "a photo of a {}"], **options})


@pytest.fixture
def model() -> Model:
    return load_model(ModelConfig(path=tiny.path()), torch.device("cpu"))


@pytest.fixture
def recorded_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torch draw the recorded noise, ``(4, 8, 8)``, of seeds 100, 101 and 104; of others, its own."""
    recorded, drawn = tiny_oracle.inputs(), torch.randn

    def randn(*shape, generator=None, **options):
        noise = recorded.get(f"noise.{generator.initial_seed()}") if generator else None
        return drawn(*shape, generator=generator, **options) if noise is None else noise

    monkeypatch.setattr(torch, "randn", randn)


def config(*steps: StepConfig, **concept) -> Config:
    values = {"name": "cat", "aliases": ["kitten"], "anchor": "dog", "preserve": ["tiger", "lion"], **concept}
    return tiny.config(tiny.path(), erasure=ErasureConfig(concepts=[ConceptConfig(**values)], recipe=list(steps)))
