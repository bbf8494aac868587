"""ESD: fine-tunes the denoiser until a concept's prompt steers away from it (Gandikota et al., ICCV 2023).

Arxiv 2303.07345, eq. 7, in the form in which the authors' code states it today (``compute_erasure_loss``): a frozen
copy of the model is the teacher, and the student learns to answer the concept's prompt with

    e*(x_t, c) - eta (e*(x_t, c) - e*(x_t, n))

n is the prompt that stands in its place, the empty one in the paper; a concept's ``anchor`` is used where it has one.
eta = 1 gives e*(n), and eta = 2 the paper's e*(n) - 1 (e*(c) - e*(n)). The x_t come from the teacher, which denoises
the concept's prompt with guidance up to a random step, so no pictures are needed.

The coefficients add up to one, so the same equation holds for models that predict velocity: v is affine in e at a given
x_t, and only the weight of a timestep in the loss differs.

``variant`` says which weights learn, linear layers and convolutions alone, as in the authors' code:

    x          attention to text (for what a prompt names)
    x-strict   its keys and values
    u          all the rest (for what must go whatever the prompt says, such as nudity)
    all        everything

One term is ours: with nothing to hold it, ESD drags neighbours and unrelated prompts along. So at the same x_t the
student is held to the teacher's answer for prompts of a concept's anchor and neighbours and for texts that have nothing
to do with it, with the weight ``preserve``; 0 is the authors' ESD.

Weights and optimizer are float32 whatever the model's dtype, since Adam's steps of 1e-5 vanish in bfloat16; a float16
model's loss is scaled. Teacher and student share the model's other weights: only those that learn exist twice.
"""

from typing import Any

from pipeline.concepts.mentions import Naming
from pipeline.config.sections.generation import GenerationConfig
from pipeline.erasure.method import Method, Training
from pipeline.erasure.methods.esd.options import ESDOptions
from pipeline.erasure.methods.esd.training import ESDTraining
from pipeline.erasure.templates import fill
from pipeline.erasure.tokens import word_rows


class ESD(Method):
    """Trains weights of the denoiser (`lacuna finetune`); a run takes the result."""

    Options = ESDOptions
    requires = frozenset({"cross_attention", "guidance"})
    stronger, weaker = "raise iterations or lr", "lower iterations or lr, raise preserve"
    options: ESDOptions

    @classmethod
    def check_sampling(cls, options: Any, generation: GenerationConfig) -> None:
        """Asks nothing: its guidance is that of training, and what it leaves is weights."""

    @classmethod
    def edits_text(cls, options: Any, label: str) -> bool:
        return False

    def train(self) -> Training:
        return ESDTraining(self.model, self._prompts(), self._kept(), self.options)

    def _prompts(self) -> list[tuple[str, str]]:
        """Return every prompt of every concept, with the one that stands in its place."""
        prompts = []
        for concept in self.concepts:
            for word in concept.words:
                for template in self.options.templates:
                    text = fill(template, word)
                    for stream in self.model.family.streams:
                        word_rows(stream, text, word, self.label)
                    prompts.append((text, fill(template, concept.anchor) if concept.anchor else ""))
        return prompts

    def _kept(self) -> list[str]:
        """Return the prompts that are to stay as they are; none of them names what is erased."""
        erased = Naming(self.concepts)
        words = {word for concept in self.concepts for word in (*concept.unharmed, concept.anchor) if word}
        texts = [fill(template, word) for word in sorted(words) for template in self.options.templates]
        return ["", *(text for text in [*texts, *self.options.keep] if not erased.names(text))]
