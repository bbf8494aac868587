"""Texts through one tokenizer and its encoder: what CLIP and T5 each make of a batch of prompts.

Every text is padded to the full length and cut off there. No mask goes along: the models were trained with attention
to the padding.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.models.transfer import to_device


def token_ids(tokenizer: Any, texts: Sequence[str], length: int, device: torch.device) -> Tensor:
    """Return the ids ``(B, length)`` of *texts*."""
    tokens = tokenizer(list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return to_device(tokens.input_ids, device)


def clip_tokens_and_pooled(encoder: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last hidden layer but one ``(B, length, D)``, and the projected end-of-text vector ``(B, P)``.

    *encoder* may lack a projection (SDXL's first one does); then the vector is the plain pooled output.
    """
    output = encoder(ids, output_hidden_states=True)
    pooled = output.text_embeds if hasattr(output, "text_embeds") else output.pooler_output
    return output.hidden_states[-2], pooled


def t5_tokens(tokenizer: Any, encoder: Any, texts: Sequence[str], length: int, device: torch.device) -> Tensor:
    """Return T5's last hidden layer ``(B, length, D)``."""
    hidden: Tensor = encoder(token_ids(tokenizer, texts, length, device))[0]
    return hidden


def short_tokens(tokenizer: Any, texts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids ``(B, T)`` of *texts*, padded to the longest of them only, and where each ends, ``(B,)``.

    CLIP reads from the first word to the last, so the end of a text knows nothing of the padding behind it.
    """
    longest = tokenizer.model_max_length
    tokens = tokenizer(list(texts), padding=True, max_length=longest, truncation=True, return_tensors="pt")
    return to_device(tokens.input_ids, device), to_device(tokens.attention_mask.sum(1) - 1, device)


def clip_pooled(tokenizer: Any, encoder: Any, texts: Sequence[str], device: torch.device) -> Tensor:
    """Return the pooled vector ``(B, P)`` of ``clip_tokens_and_pooled``, with no more padding than there must be."""
    output = encoder(short_tokens(tokenizer, texts, device)[0])
    pooled: Tensor = output.text_embeds if hasattr(output, "text_embeds") else output.pooler_output
    return pooled
