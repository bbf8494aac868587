"""Texts to conditioning, once per distinct pair of prompt and negative prompt, ahead of all sampling.

Pairs are encoded so many at a time, padded with empty texts, because a row's bytes may depend on the shape of the batch
it is computed in (on the other rows they do not).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.erasure.method import Method, Prompts
from pipeline.errors import check_given, named_in_errors
from pipeline.models.family import Conditioning, Family
from pipeline.models.reading import PLAIN, Reader, Reading
from pipeline.models.transfer import to_device

TOGETHER = 32  # pairs encoded at once
PromptPair = tuple[str, str]  # prompt, negative prompt
PADDING: PromptPair = ("", "")


@dataclass(frozen=True)
class Texts:
    """Conditioned pairs, in host memory: a shard's embeddings may take gigabytes (FLUX: 4 MB a prompt).

    ``index`` tells the row of each pair, ``told`` its texts as far as they were read. Padding has a row too.
    """

    index: dict[PromptPair, int]
    positive: Conditioning
    negative: Conditioning | None
    gates: dict[str, Tensor]
    told: tuple[PromptPair, ...]
    reading: Reading

    def batch(self, pairs: Sequence[PromptPair], device: torch.device) -> Prompts:
        """Return the prompts of one batch on *device*, one row per entry of *pairs*."""
        places = [self.index[pair] for pair in pairs]
        rows = torch.tensor(places)
        return Prompts(
            texts=tuple(self.told[place][0] for place in places),
            negatives=tuple(self.told[place][1] for place in places),
            positive=self.positive.rows(rows).to(device),
            negative=None if self.negative is None else self.negative.rows(rows).to(device),
            gates={name: to_device(scores[rows], device) for name, scores in self.gates.items()},
            reading=self.reading,
        )


@torch.inference_mode()
def encode_texts(
    family: Family, pairs: Iterable[PromptPair], methods: Sequence[Method], guided: bool, reading: Reading = PLAIN
) -> Texts:
    """Encode the distinct *pairs* and let every conditioning method act on them, in the recipe's order."""
    reader = Reader(family, reading)
    distinct = list(dict.fromkeys([PADDING, *pairs]))
    told = tuple((reader.extent(prompt).told, reader.extent(negative).told) for prompt, negative in distinct)
    chunks = []
    for start in range(0, len(distinct), TOGETHER):
        chunk, read = distinct[start : start + TOGETHER], told[start : start + TOGETHER]
        padding = [PADDING] * (TOGETHER - len(chunk))
        prompts = Prompts(
            texts=tuple(prompt for prompt, _ in (*read, *padding)),
            negatives=tuple(negative for _, negative in (*read, *padding)),
            positive=reader.encode([prompt for prompt, _ in chunk + padding]),
            negative=reader.encode_negative([negative for _, negative in chunk + padding]) if guided else None,
            reading=reading,
        )
        for method in methods:
            if method.has("condition"):
                with named_in_errors(method.where):
                    prompts = method.condition(prompts)
                    check_given("condition", prompts, Prompts, "Prompts")
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
        told=told,
        reading=reading,
    )
