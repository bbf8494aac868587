"""Kernels of some GPUs: refused in a line where they cannot run, settled and pinned, and right where they are tried."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend
from torch.nn.functional import scaled_dot_product_attention

from pipeline.config import identity, is_settled, load_config
from pipeline.config.schema import Config
from pipeline.config.sections.generation import Attention, Quantize
from pipeline.errors import ConfigError
from pipeline.generation.environment import environment
from pipeline.models.kernels import (
    NEEDS,
    Card,
    Need,
    attention_kernel,
    check_kernels_here,
    check_need,
    flash3,
    head_widths,
    install_attention,
    try_kernel,
)
from pipeline.models.load import load_model
from pipeline.models.settle import as_begun, settle
from tests import tiny, tiny_families

CONFIG = """\
model: {{path: diorama}}
prompts: {{template: "a {{animal}}", values: {{animal: [cat, dog]}}}}
output: {{path: {output}}}
"""


def config(folder: Path, *overrides: str) -> Config:
    (folder / "c.yaml").write_text(CONFIG.format(output=folder / "corpus"))
    return load_config(folder / "c.yaml", overrides)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["generation.attention=flash"], r"generation\.attention: is .flash. \(did you mean .flash3.\?\)"),
        (["generation.quantize=fp4"], r"generation\.quantize: is .fp4.*expected one of none, fp8"),
        (
            ["generation.attention=flash3", "cluster.device=cpu"],
            r"generation\.attention: is flash3, which needs a CUDA device, but cluster\.device is cpu; leave it out",
        ),
        (
            ["generation.quantize=fp8", "cluster.device=cpu"],
            r"generation\.quantize: is fp8, which needs a CUDA device, but cluster\.device is cpu; leave it out",
        ),
        (
            ["generation.attention=flash3", "model.dtype=float16"],
            r"generation\.attention: is flash3, which computes in bfloat16 alone, but model\.dtype is float16",
        ),
        (
            ["generation.attention=cudnn", "model.dtype=float32"],
            r"generation\.attention: is cudnn, which computes in bfloat16 or float16 alone, but model\.dtype is",
        ),
        (
            ["generation.quantize=fp8", "model.dtype=float16"],
            r"generation\.quantize: is fp8, which computes in bfloat16 alone, but model\.dtype is float16",
        ),
    ],
)
def test_what_a_config_alone_tells_is_refused_when_it_is_read(overrides: list[str], said: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=said) as refused:
        config(tmp_path, *overrides)
    assert len(str(refused.value).splitlines()) == 1


def test_what_needs_a_gpu_is_refused_where_none_is(tmp_path: Path):
    for asked in ("generation.attention=flash3", "generation.attention=cudnn", "generation.quantize=fp8"):
        key, value = asked.split("=")
        found = settle(config(tmp_path, asked, "model.dtype=bfloat16"), "cpu")
        with pytest.raises(ConfigError, match=rf"^{re.escape(key)}: {value} needs a CUDA device, and here is none"):
            check_kernels_here(found, "cpu")
    check_kernels_here(settle(config(tmp_path), "cpu"), "cpu")


H100, A100, L4, B200 = (
    Card("NVIDIA H100", (9, 0)), Card("NVIDIA A100", (8, 0)), Card("NVIDIA L4", (8, 9)), Card("NVIDIA B200", (10, 0)),
)  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "cards"),
    [(Attention.flash3, {H100}), (Attention.cudnn, {H100, A100, L4, B200}), (Quantize.fp8, {H100, L4, B200})],
)
def test_each_is_for_cards_that_can(asked: Attention | Quantize, cards: set[Card]):
    need = NEEDS[asked]
    there = Need(need.least, need.most, need.cards)  # its package apart
    for card in (H100, A100, L4, B200):
        if card in cards:
            check_need("this", there, card)
        else:
            capability = ".".join(map(str, card.capability))
            with pytest.raises(ConfigError, match=f"^this is for .*, and {card.name} has {capability}; leave it out$"):
                check_need("this", there, card)


def test_a_package_that_is_missing_is_told_with_the_command_that_installs_it():
    need = Need((9, 0), None, "GPUs", "no-such-kernel", "no_such_kernel")
    with pytest.raises(ConfigError, match=r"^x needs the package no-such-kernel, .*: `pip install no-such-kernel`$"):
        check_need("x", need, H100)
    check_need("x", Need((9, 0), None, "GPUs", "torch", "torch"), H100)


def test_auto_is_settled_and_pinned(tmp_path: Path):
    plain = config(tmp_path).generation
    assert (plain.attention, plain.quantize) == (Attention.native, Quantize.none)
    found = config(tmp_path, "generation.attention=auto")
    settled = settle(found, "cpu")
    assert is_settled(settled)
    not_yet = replace(settled, generation=replace(settled.generation, attention=Attention.auto))
    assert not is_settled(not_yet)
    with pytest.raises(ValueError, match="settle it first"):
        identity(not_yet, "s")
    assert settled.generation.attention is Attention.native
    begun = {"model.dtype": "bfloat16", "generation.size": [64, 64], "generation.attention": "cudnn"}
    assert as_begun(found, begun).generation.attention is Attention.cudnn
    before = {key: value for key, value in begun.items() if key != "generation.attention"}
    assert as_begun(found, before).generation.attention is Attention.native
    given = config(tmp_path, "generation.attention=native")
    assert as_begun(given, begun).generation.attention is Attention.native  # and is then refused as another corpus


def test_each_makes_another_corpus(tmp_path: Path):
    names = {
        identity(settle(config(tmp_path, "model.dtype=bfloat16", *asked), "cpu"), "s").digest
        for asked in ([], ["generation.attention=cudnn"], ["generation.attention=flash3"], ["generation.quantize=fp8"])
    }
    assert len(names) == 4


def test_the_environment_is_as_ever_where_nothing_is_asked_for():
    assert environment("cpu", 1) == environment("cpu", 1, Config().generation)


def test_every_width_of_heads_is_tried():
    device = torch.device("cpu")
    for path in (tiny.path(), tiny_families.path("sd3"), tiny_families.path("flux")):
        model = load_model(tiny.config(path).model, device)
        widths = {module.to_q.out_features // module.heads for module in model.family.denoiser.modules()
                  if hasattr(module, "to_q")}  # fmt: skip
        assert set(head_widths(model.family.denoiser)) == widths
        assert widths


def test_a_kernel_that_does_not_run_here_or_is_off_is_refused(monkeypatch: pytest.MonkeyPatch):
    cpu = torch.device("cpu")
    try_kernel(Attention.flash3, SDPBackend.FLASH_ATTENTION, 40, cpu, torch.bfloat16)  # a CPU has one too
    with pytest.raises(ConfigError, match=r"cudnn does not compute heads of 40 features in torch\.bfloat16 here \("):
        try_kernel(Attention.cudnn, SDPBackend.CUDNN_ATTENTION, 40, cpu, torch.bfloat16)
    monkeypatch.setattr("pipeline.models.kernels.AMISS", 1e-9)
    with pytest.raises(ConfigError, match="flash3 is off by 0% here, with heads of 40 features"):
        try_kernel(Attention.flash3, SDPBackend.FLASH_ATTENTION, 40, cpu, torch.bfloat16)


@pytest.mark.skipif(importlib.util.find_spec("fa3_fwd_interface") is not None, reason="the wheel is here")
def test_installing_what_is_not_there_is_one_line():
    model = load_model(tiny.config(tiny.path()).model, torch.device("cpu"))
    install_attention(Attention.native, model)  # needs nothing
    with pytest.raises(ConfigError, match=r"^generation\.attention: flash3 cannot be loaded from fa3-fwd with torch "):
        install_attention(Attention.flash3, model)


@pytest.mark.parametrize("attention", [Attention.flash3, Attention.cudnn])
def test_the_kernel_is_preferred_and_what_was_before_comes_back(attention: Attention):
    order = torch._C._get_sdp_priority_order
    before = order()
    query = torch.randn(1, 2, 8, 16)
    with attention_kernel(attention):
        first = SDPBackend(order()[0])
        seen = scaled_dot_product_attention(query, query, query, attn_mask=torch.zeros(8, 8))
    assert first.name == {"flash3": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION"}[attention.value]
    assert seen.isfinite().all()  # with a mask another kernel answers
    assert order() == before
    with attention_kernel(Attention.native):
        assert order() == before


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_flash_attention_3_is_given_what_it_asks_for(causal: bool, scale: float | None):
    """Its operator by its documented contract: sequences before heads, the output written in place."""

    def kernel(q, k, v, *, out, softmax_scale, is_causal, num_splits):
        assert num_splits == 1
        assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
        answer = scaled_dot_product_attention(
            *(part.transpose(1, 2) for part in (q, k, v)), scale=softmax_scale, is_causal=is_causal
        )
        out.copy_(answer.transpose(1, 2))
        logits = torch.zeros(q.shape[0], q.shape[2], q.shape[1])
        return out, logits, None, None

    wide = torch.randn(2, 6, 3 * 16)
    query = wide.view(2, 6, 3, 16).transpose(1, 2)  # (B, heads, N, d), as projections give it
    key, value = torch.randn(2, 3, 6, 16), torch.randn(2, 3, 16, 6).transpose(-1, -2)
    found = flash3(kernel, query, key, value, is_causal=causal, scale=scale)
    expected = torch.ops.aten._scaled_dot_product_flash_attention
    schema = expected.default._schema.returns
    assert len(found) == len(schema)
    wanted = scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale)
    torch.testing.assert_close(found[0], wanted)
    assert found[0].stride() == query.stride()
    assert found[4:6] == (6, 6)
    assert found[1].shape == (2, 3, 6)
