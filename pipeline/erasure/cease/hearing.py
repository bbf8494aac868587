"""Attention scores: how much of a concept a picture hears, at each position, while it is drawn.

What a position gets from a prompt, beyond what the empty text would give it, is compared with what the concept's word
would bring beyond other things (e: embedding at the end of "a WORD", m: its mean over common things, W_v: the layer's
value projection):

    heard(n) = cos( attn(q_n, K_prompt, V_prompt) - attn(q_n, K_empty, V_empty),  W_v (e - m) )        all heads as one

It asks no word of the prompt, but what the picture takes from the prompt as a whole. A sample's score is the mean
over layers of the sixteenth of the positions that hear most. It is there after the first step: the text has spoken by
then, though its place is vague. How strongly positions attend to a key of the concept's own says little so early, in
most layers nothing (``pipeline/evaluation/results/LOG.md``). How it compares with the text's own scores, and why it is
off, is told in ``pipeline/erasure/README.md``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize, scaled_dot_product_attention

from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import naming
from pipeline.erasure.cease.mask import grid, most_positions
from pipeline.erasure.gate.encoder import THINGS
from pipeline.erasure.tokens import end_of_text
from pipeline.errors import ConfigError
from pipeline.models.family import Family
from pipeline.models.layers import Layer, merge_heads, split_heads

PEAK = 16  # of so many positions one counts: those that hear most


class ConceptDirections:
    """What the concepts would bring, in the text encoder's eyes: ``directions`` ``(W, D)``, a row for each word."""

    def __init__(self, family: Family, concepts: Sequence[Concept]):
        self.family = family
        self.empty = family.encode([""])
        things = {thing: self._end(thing) for thing in THINGS}
        directions = []
        for concept in concepts:
            own = naming(concept)
            common = torch.stack([end for thing, end in things.items() if not own.is_word(thing)]).mean(0)
            directions += [normalize(self._end(word) - common, dim=0) for word in concept.words]
        self.directions = torch.stack(directions)
        self.words = [len(concept.words) for concept in concepts]

    def _end(self, word: str) -> Tensor:
        text, stream = f"a {word}", self.family.streams[0]
        return self.family.encode([text]).embeds[0, end_of_text(stream, text)].float()


class Listener:
    """Listens in on some pictures of one batch. ``latent_shape`` is ``(C, h, w)``."""

    def __init__(self, concepts: ConceptDirections, latent_shape: tuple[int, int, int]):
        self.concepts = concepts
        self.latent_shape = latent_shape
        self.most = min(most_positions(latent_shape), latent_shape[1] * latent_shape[2] // 4)
        self._layers: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def listens(self, positions: int) -> bool:
        """Tell whether to listen to layers of so many *positions*: finer ones draw edges."""
        return positions <= self.most

    def heard(self, layer: Layer, query: Tensor, output: Tensor) -> Tensor:
        """Return cosines ``(R, concepts, h, w)`` in float32, for queries and outputs ``(R, heads, N, d)``.

        Of a concept's words the one that is heard most counts.
        """
        if layer.index not in self._layers:
            attn, empty = layer.module, self.concepts.empty.embeds
            words = linear(self.concepts.directions, attn.to_v.weight.float())
            key, value = (split_heads(x(empty), layer.heads) for x in (attn.to_k, attn.to_v))
            self._layers[layer.index] = key, value, normalize(words, dim=-1)
        key, value, words = self._layers[layer.index]
        rows = len(query)
        mask = self.concepts.empty.mask  # (1, T)
        silence = scaled_dot_product_attention(
            query,
            key.expand(rows, -1, -1, -1).contiguous(),  # as in ``attention_to``
            value.expand(rows, -1, -1, -1).contiguous(),
            attn_mask=None if mask is None else mask[:, None, None],
        )
        got = normalize(merge_heads(output - silence).float(), dim=-1)  # (R, N, heads * d)
        cosines = (got @ words.T).split(self.concepts.words, dim=-1)
        size = grid(query.shape[2], self.latent_shape)
        loudest: Tensor = torch.stack([c.amax(-1) for c in cosines], dim=1).unflatten(-1, size)
        return loudest


class FirstStep:
    """The attention scores of all samples of a batch, gathered while the denoiser runs once."""

    def __init__(self, listener: Listener):
        self.listener = listener
        self.peaks: list[Tensor] = []

    def add(self, layer: Layer, query: Tensor, output: Tensor) -> None:
        """Take note of a layer: queries and outputs ``(B, heads, N, d)``."""
        if self.listener.listens(query.shape[2]):
            cells = self.listener.heard(layer, query, output).flatten(2)
            self.peaks.append(cells.topk(max(1, cells.shape[2] // PEAK), dim=-1).values.mean(-1))

    def scores(self) -> Tensor:
        """Return the scores, float32 ``(B, concepts)`` in -1..1. Raises ``ConfigError`` where no layer gave any."""
        if not self.peaks:
            raise ConfigError(
                f"no layer of the model can be listened to: of those of at most {self.listener.most:,} positions it "
                "has none at this size; set the option attention of cease to 1"
            )
        return torch.stack(self.peaks).mean(0)
