"""Negative prompt: guidance away from the concepts' words (Ho and Salimans 2022, arXiv 2207.12598, eq. 6, with the
unconditional branch told what not to draw):

    e = e(neg) + w (e(p) - e(neg))

The oldest defence, free and weak. It acts on every sample, and a prompt that says just what the negative one says is
left without any guidance. The words come before the sample's own negative prompt, so that truncation cannot drop them;
with ``long_prompts: chunks`` the two together are read as far as the prompt or the negative prompt alone would be.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.concepts.concept import Concept
from pipeline.erasure.method import Method, Prompts
from pipeline.erasure.tokens import joined_words
from pipeline.models.load import Model


@dataclass(kw_only=True)
class NegativePromptOptions:
    """None: how far to push is the run's own guidance."""


class NegativePrompt(Method):
    """Tells the negative branch of every sample the words of all concepts, besides what it is told already."""

    Options = NegativePromptOptions
    requires = frozenset({"guidance"})
    chunks = True

    def __init__(self, model: Model, concepts: Sequence[Concept], options: NegativePromptOptions, *, label: str):
        super().__init__(model, concepts, options, label=label)
        self.words = joined_words(model.family.streams[0], concepts, label)

    def condition(self, prompts: Prompts) -> Prompts:
        assert prompts.negative is not None, "refused by check_sampling"
        reader = prompts.reader(self.model.family)
        words = reader.literal(self.words)
        negatives = tuple(f"{words}, {text}" if text else words for text in prompts.negatives)
        return prompts.changed(negatives=negatives, negative=reader.encode(negatives))
