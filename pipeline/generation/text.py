"""Texts to conditioning, once per distinct pair of prompt and negative prompt, ahead of all sampling.

Pairs are encoded in chunks of a fixed size, padded with empty texts, because a row's bytes may depend on the shape of
the batch it is computed in (on the other rows they do not).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.erasure.method import Method, Prompts
from pipeline.models.family import Conditioning, Family

CHUNK = 32  # pairs encoded at once
PromptPair = tuple[str, str]  # prompt, negative prompt
PADDING: PromptPair = ("", "")


@dataclass(frozen=True)
class Texts:
    """Conditioned pairs, in host memory: a shard's embeddings may take gigabytes (FLUX: 4 MB a prompt).

    ``index`` tells the row of each pair. Padding has a row too.
    """

    index: dict[PromptPair, int]
    positive: Conditioning
    negative: Conditioning | None
    gates: dict[str, Tensor]

    def batch(self, pairs: Sequence[PromptPair], device: torch.device) -> Prompts:
        """Return the prompts of one batch on *device*, one row per entry of *pairs*."""
        rows = torch.tensor([self.index[pair] for pair in pairs])
        return Prompts(
            texts=tuple(prompt for prompt, _ in pairs),
            negatives=tuple(negative for _, negative in pairs),
            positive=self.positive.rows(rows).to(device),
            negative=None if self.negative is None else self.negative.rows(rows).to(device),
            gates={name: scores[rows].to(device) for name, scores in self.gates.items()},
        )


@torch.inference_mode()
def encode_texts(family: Family, pairs: Iterable[PromptPair], methods: Sequence[Method], guided: bool) -> Texts:
    """Encode the distinct *pairs* and let every conditioning method act on them, in the recipe's order."""
    distinct = list(dict.fromkeys([PADDING, *pairs]))
    chunks = []
    for start in range(0, len(distinct), CHUNK):
        chunk = distinct[start : start + CHUNK]
        padded = chunk + [PADDING] * (CHUNK - len(chunk))
        prompts = Prompts(
            texts=tuple(prompt for prompt, _ in padded),
            negatives=tuple(negative for _, negative in padded),
            positive=family.encode([prompt for prompt, _ in padded]),
            negative=family.encode_negative([negative for _, negative in padded]) if guided else None,
        )
        for method in methods:
            if method.has("condition"):
                prompts = method.condition(prompts)
        host = prompts.changed(
            positive=prompts.positive.to("cpu"),
            negative=None if prompts.negative is None else prompts.negative.to("cpu"),
            gates={name: scores.cpu() for name, scores in prompts.gates.items()},
        )
        chunks.append(host)
    return Texts(
        index={pair: row for row, pair in enumerate(distinct)},
        positive=Conditioning.cat([chunk.positive for chunk in chunks]),
        negative=Conditioning.cat([c.negative for c in chunks if c.negative is not None]) if guided else None,
        gates={name: torch.cat([chunk.gates[name] for chunk in chunks]) for name in chunks[0].gates},
    )
