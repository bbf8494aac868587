"""Ring-A-Bell: prompts that ask for a concept without its words, searched on the text encoder alone.

Tsai et al., ICLR 2024, arXiv 2310.10012. The concept's vector is how it moves the embeddings of prompts (eq. 2),

    c = mean_i (E(with_i) - E(without_i))                                     (T, D)

and the attack looks for tokens whose embeddings come nearest to those of a prompt with that vector added (eq. 3, 4):

    min over tokens of || E(tokens) - (E(p) + strength c) ||^2

by a genetic search: the better half of a population is kept, pairs of it are crossed at one point, and children mutate.
It needs neither the erased model nor any picture, so one search serves all methods. Only the unerased text encoder is
asked, whole populations at a time: ``Budget.encodings`` a case, besides those of the target and the concept's vector.

Where we differ from the paper (population 200, 3000 generations, 16 tokens): half of the first population starts from
p itself with random tokens in the place of the concept's words, which saves most of the search; the tokens are whole
words, so that the text that is found is, read by the tokenizer, the tokens that were found; and the concept's own
listed words and their tokens may not be used, because every method is expected to know those.

It must succeed somewhere before its failures count: against UCE that erases the concept's own tokens alone it does in
most cases (``configs/evaluation/attack.yaml``; figures in ``pipeline/evaluation/README.md``), mostly by coming upon an
unlisted synonym. Searches by gradient, of keys and values, of predicted noise and for free vectors did no better
(``pipeline/evaluation/results/LOG.md``).
``embedding.py`` hands in embeddings that no words need to have.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import mentions
from pipeline.concepts.words import plurals
from pipeline.errors import ConfigError
from pipeline.models.load import Model

CROSSED = 0.5  # of the children have two parents, the rest one
MUTATED = 0.125  # of a child's tokens, besides one in any case: an unchanged child would only be encoded again


@dataclass(frozen=True)
class Budget:
    """What a search may cost. ``strength`` is eta of the paper."""

    tokens: int
    strength: float
    population: int
    generations: int

    @property
    def children(self) -> int:
        """How many are new in each generation."""
        return self.population - self.population // 2

    @property
    def encodings(self) -> int:
        """How many texts are encoded to be compared with the target."""
        return self.population + self.generations * self.children


@dataclass(frozen=True)
class Attack:
    """A prompt that was found, how far it is from its target, as a share of the first population's best, and the time
    that it took."""

    prompt: str
    distance: float
    seconds: float


class RingABell:
    """Searches prompts for one concept. ``pairs`` are texts with the concept and the same without."""

    def __init__(self, model: Model, concept: Concept, pairs: Sequence[tuple[str, str]], budget: Budget):
        self.tokenizer = model.pipe.tokenizer
        self.encoder = model.pipe.text_encoder
        self.device = model.device
        self.concept = concept
        self.budget = budget
        self.length = self.tokenizer.model_max_length
        self.check(model, budget)
        self.words = self._words()
        with_it, without = (self._encode(self._ids(list(texts))) for texts in zip(*pairs, strict=True))
        self.vector = (with_it - without).mean(0)  # (T, D)

    @staticmethod
    def check(model: Model, budget: Budget) -> None:
        """Raise ``ConfigError`` for more tokens than the model reads."""
        longest = model.pipe.tokenizer.model_max_length - 2
        if budget.tokens > longest:
            raise ConfigError(f"attack.tokens: is {budget.tokens}; this model's prompts have at most {longest}")

    def search(self, prompt: str, seed: int) -> Attack:
        """Return the best prompt found for *prompt*, which names the concept."""
        started = time.monotonic()
        rng = torch.Generator().manual_seed(seed)
        budget = self.budget
        target = self._encode(self._ids([prompt]))[0] + budget.strength * self.vector
        tokens = self._first(prompt, rng)  # (population, tokens)
        errors = self._errors(tokens, target)
        first = errors.min()
        half = budget.population // 2
        for _ in range(budget.generations):
            best = errors.topk(half, largest=False).indices
            parents, errors = tokens[best], errors[best]
            children = self._children(parents, budget.children, rng)
            tokens, errors = torch.cat([parents, children]), torch.cat([errors, self._errors(children, target)])
        for i in errors.argsort():
            text = self._text(tokens[i])
            if not mentions(text, self.concept):  # a phrase of several words that are not its own
                return Attack(text, (errors[i] / first).item(), time.monotonic() - started)
        raise ConfigError(
            f"attack: every prompt found names {self.concept.name!r}; raise attack.generations, in another folder"
        )

    def _words(self) -> Tensor:
        """Ids of the tokens that may be used: whole words that the tokenizer reads back as themselves."""
        names = {form for word in self.concept.words for form in (word, *plurals(word))}
        own = {i for name in names for i in self.tokenizer(name, add_special_tokens=False).input_ids}
        pieces = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        whole = [(piece.removesuffix("</w>"), i) for piece, i in pieces if piece.endswith("</w>") and i not in own]
        words = [(word, i) for word, i in whole if word.isalpha() and word.isascii()]
        read = self.tokenizer([word for word, _ in words], add_special_tokens=False).input_ids
        return torch.tensor([i for (_, i), ids in zip(words, read, strict=True) if ids == [i]])

    def _first(self, prompt: str, rng: torch.Generator) -> Tensor:
        budget = self.budget
        tokens = self._random((budget.population, budget.tokens), rng)
        ids = self.tokenizer(prompt, add_special_tokens=False).input_ids[: budget.tokens]
        allowed = torch.isin(torch.tensor(ids), self.words)
        kept = torch.where(allowed, torch.tensor(ids), tokens[: budget.population // 2, : len(ids)])
        tokens[: budget.population // 2, : len(ids)] = kept
        return tokens

    def _children(self, parents: Tensor, count: int, rng: torch.Generator) -> Tensor:
        """Return *count* children (count, tokens) of random pairs of *parents*, each changed in one place at least."""
        pairs = torch.randint(len(parents), (2, count), generator=rng)
        length = parents.shape[1]
        cut = torch.randint(1, max(2, length), (count, 1), generator=rng)
        crossed = torch.rand((count, 1), generator=rng) < CROSSED
        head = torch.arange(length) < cut
        children = torch.where(head | ~crossed, parents[pairs[0]], parents[pairs[1]])
        changed = torch.rand(children.shape, generator=rng) < MUTATED
        changed[torch.arange(count), torch.randint(length, (count,), generator=rng)] = True
        return torch.where(changed, self._random(children.shape, rng), children)

    def _random(self, shape: Any, rng: torch.Generator) -> Tensor:
        return self.words[torch.randint(len(self.words), tuple(shape), generator=rng)]

    def _errors(self, tokens: Tensor, target: Tensor) -> Tensor:
        """Squared distance to *target* (T, D) of each row of *tokens*, (N,)."""
        ids = torch.full((len(tokens), self.length), self.tokenizer.pad_token_id)
        ids[:, 0] = self.tokenizer.bos_token_id
        ids[:, 1 : tokens.shape[1] + 1] = tokens
        ids[:, tokens.shape[1] + 1] = self.tokenizer.eos_token_id
        return (self._encode(ids) - target).square().sum((1, 2)).cpu()

    def _ids(self, texts: Sequence[str]) -> Tensor:
        padded = self.tokenizer(
            list(texts), padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        ids: Tensor = padded.input_ids
        return ids

    @torch.inference_mode()
    def _encode(self, ids: Tensor) -> Tensor:
        """Last hidden states (N, T, D), float32."""
        hidden: Tensor = self.encoder(ids.to(self.device)).last_hidden_state.float()
        return hidden

    def _text(self, tokens: Tensor) -> str:
        return " ".join(self.tokenizer.convert_ids_to_tokens(int(i)).removesuffix("</w>") for i in tokens)
