"""The contract of an erasure method: up to three hooks, each optional, all per sample inside a mixed batch.

- ``edit`` weights, once, when a run is prepared: returns new tensors, which are pinned in the corpus. Where that takes
  long, ``train`` stands in for it: `lacuna finetune` runs it beforehand, and a run takes its result (``trained.py``);
- ``condition``: change what the denoiser is told of a prompt, once per distinct prompt, before sampling;
- ``steer``: take part in sampling: in attention (keys, values, output) or in the guided prediction.

A method is constructed once per model, after all edits of the recipe are in place if it conditions or steers, and
before its own edit if it edits. It holds no state of a batch: that lives in the ``Steering`` it returns for the batch.
Steps of a recipe act in the recipe's order, whatever the hook, so any of them stack.

Invariant of gated methods: a sample whose gate is shut comes out bit-identical to the same batch without the method.
So a steering writes only the rows it means, and further branches run as forwards of their own, never in the batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from pipeline.concepts.concept import Concept
from pipeline.config.sections.generation import GenerationConfig, LongPrompts
from pipeline.erasure.tokens import check_concepts
from pipeline.errors import ConfigError
from pipeline.models.family import Conditioning, Family
from pipeline.models.layers import QKV, JointLayer, Layer
from pipeline.models.load import Model
from pipeline.models.reading import PLAIN, Reader, Reading
from pipeline.models.switching import Carrying, OtherText, Switching


@dataclass(frozen=True)
class Prompts:
    """Some prompts and what the denoiser will be told of them; row i of every tensor belongs to ``texts[i]``.

    ``gates`` collects, per method and concept, float32 ``(B,)`` scores of how far the concept is in play. Slots of
    padding hold empty texts and are processed like any other. Texts end where the text encoder's reading ended: what it
    never read asks for nothing. ``reading`` tells how they were encoded, so that others made of them are likewise
    (``reader``).
    """

    texts: tuple[str, ...]
    negatives: tuple[str, ...]
    positive: Conditioning
    negative: Conditioning | None  # None: no guidance, so no negative branch
    gates: Mapping[str, Tensor] = field(default_factory=dict)
    reading: Reading = PLAIN

    def __len__(self) -> int:
        return len(self.texts)

    def reader(self, family: Family) -> Reader:
        """Return what reads texts as these were read, and tells where their tokens lie in ``embeds``."""
        return Reader(family, self.reading)

    def changed(self, **fields: Any) -> "Prompts":
        """Return a copy with some fields replaced; ``gates`` are added to those already there."""
        return replace(self, **{**fields, "gates": {**self.gates, **fields.get("gates", {})}})


@dataclass(frozen=True)
class Sampling:
    """How the batch at hand is sampled. ``latent_shape`` is ``(C, h, w)``."""

    latent_shape: tuple[int, int, int]
    steps: int
    guidance: float


@dataclass(frozen=True)
class Branch:
    """Further predictions that a steering wants at every step: one prompt a row, for the samples ``rows`` ``(R,)``."""

    rows: Tensor
    conditioning: Conditioning


@dataclass(frozen=True)
class Prediction:
    """One step's predictions, ``(B, C, h, w)`` each, and ``branch`` ``(R, C, h, w)`` if the steering asked for one."""

    step: int  # 0, 1, ...: calls of the denoiser so far in this batch
    timestep: Tensor
    latents: Tensor
    positive: Tensor
    negative: Tensor | None
    guided: Tensor  # after guidance and earlier steerings
    branch: Tensor | None


class Steering:
    """A method's part in sampling one batch. Subclasses override what they need; the rest costs nothing.

    Rows of attention tensors are the denoiser's: all negatives, then all positives (positives alone without guidance).
    """

    where: str = "erasure.recipe"  # as Method.where; set by whoever asked the method for it

    def __init__(self) -> None:
        self.gates: dict[str, Tensor] = {}  # as Prompts.gates; read after the last step
        self.branch: Branch | None = None
        self.switching: Switching | None = None  # where it ``switch``es, and how far at this step
        self.carrying: Carrying | None = None  # the same, in joint attention
        self.stale = False  # set by ``begin`` where ``text`` or ``switch`` have another answer from this step on

    def begin(self, step: int, timestep: Tensor) -> None:
        """Called before each run of the denoiser."""

    def parts(self) -> "Sequence[Steering]":
        """Return the steerings that ``switch`` on its behalf: itself, if it does."""
        return () if self.switching is None else (self,)

    def text(self, layer: Layer, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Change keys and values ``(R, heads, T, d)`` of a layer; called once per batch, and when one is stale."""
        return key, value

    def switch(self, layer: Layer, key: Tensor, value: Tensor) -> OtherText:
        """Return what the positives of a layer may be switched to, given the prompts' keys and values; called just as
        ``text``, after all of those. Where and how far is said by ``switching``."""
        raise NotImplementedError

    def blend(self, layer: Layer, query: Tensor, output: Tensor) -> Tensor:
        """Change attention output ``(R, heads, N, d)``, given queries of that shape; called at each step and layer.

        *output* may be changed in place and returned. What can be said by ``switch`` should be: a forward with this
        hook is not compiled.
        """
        return output

    def joint(self, layer: JointLayer, image: QKV, text: QKV, output: Tensor) -> Tensor:
        """Change what image tokens get from joint attention, ``(R, heads, N, d)``; called at each step and layer.

        *output* may be changed in place and returned. As for ``blend``, a forward with this hook is not compiled:
        carrying another text beside the batch's own is said by ``carrying``.
        """
        return output

    def masks(self) -> dict[str, Tensor]:
        """Return, for whoever watches, where it acts at this step: float ``(B, h, w)`` in 0..1 by what it is."""
        return {}

    def guide(self, prediction: Prediction) -> Tensor:
        """Return what goes to the scheduler, ``(B, C, h, w)``."""
        return prediction.guided

    def overrides(self, hook: str) -> bool:
        return getattr(type(self), hook) is not getattr(Steering, hook)


class Training(Protocol):
    """A fine-tuning under way. Iteration *i* depends on *i* and the state alone, so that one that was interrupted
    comes to the same result as one that was not."""

    iterations: int
    advice: str  # what to change where the loss or the weights are no longer finite: "lower lr, which is 1"

    def iterate(self, i: int) -> float:
        """Run iteration *i*, counted from 0; return its loss."""

    def state(self) -> dict[str, Tensor]:
        """Return all that iterations have changed, to be saved after any of them."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up a saved state. Raises ``ConfigError`` for one of another training, and has then changed nothing."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the trained weights as ``Method.edit`` does, in float32."""


@dataclass(kw_only=True)
class NoOptions:
    """The options of a method that has none."""


HOOKS = ("edit", "train", "condition", "steer")


class Method:
    """Base of all methods. A subclass defines some of ``HOOKS``, and names the dataclass of its ``Options``, if it has
    any, and what it ``requires`` of a family.

    Constructing one raises ``ConfigError`` for concepts that no method can work with (``check_concepts``), or that it
    cannot.
    """

    Options: ClassVar[type] = NoOptions
    requires: ClassVar[frozenset[str]] = frozenset()  # see Family.offers
    once: ClassVar[str] = ""  # why a recipe may hold it once only, if so
    separable: ClassVar[bool] = False  # an edit of one of its concepts is quick, and tells of that concept alone
    chunks: ClassVar[bool] = False  # conditions and steers prompts in chunks and with weights too (``models/reading``)
    stronger: ClassVar[str] = "raise its strength"  # what to do where an edit moved nothing
    weaker: ClassVar[str] = "lower its strength"  # and where it moved everything
    where: str = "erasure.recipe"  # set by ``Step.build``: the key that names it, and its class, for what it raises

    def __init__(self, model: Model, concepts: Sequence[Concept], options: Any, *, label: str):
        self.model = model
        self.concepts = tuple(concepts)
        self.options = options
        self.label = label  # unique in the recipe, the prefix of gates and messages: "cease", or "cease-2"
        check_concepts(model.family.streams, concepts, label)

    def edit(self) -> dict[str, Tensor]:
        """Return new values, in full, by parameter name from the pipeline on ("unet.….weight"), solved jointly."""
        raise NotImplementedError

    def train(self) -> "Training":
        """Begin to train what ``edit`` would otherwise return."""
        raise NotImplementedError

    def condition(self, prompts: Prompts) -> Prompts:
        """Return *prompts* with changed conditioning and with gates."""
        raise NotImplementedError

    def steer(self, prompts: Prompts, sampling: Sampling) -> Steering | None:
        """Return the part to play in sampling a batch, or ``None`` where no sample of it is concerned."""
        raise NotImplementedError

    def opens(self, gate: str) -> float | None:
        """Return the score from which the gate of this name opens; None where the method acts by degrees, or always."""
        return None

    def explain(self, text: str) -> list[str]:
        """Return, a sentence each, what the method makes of prompt *text*, which is read to its end and without syntax;
        for people, and before sampling."""
        return []

    @classmethod
    def has(cls, hook: str) -> bool:
        return getattr(cls, hook) is not getattr(Method, hook)

    @classmethod
    def files(cls, options: Any, label: str) -> list[Path]:
        """Return the files that ``edit`` or ``train`` reads besides the model's: what comes after depends on their
        content too. Raises ``ConfigError`` where they cannot be found."""
        return []

    @classmethod
    def edits_text(cls, options: Any, label: str) -> bool:
        """Tell whether its edit may change text encoders, by which later steps and their gates read prompts. Raises
        ``ConfigError`` as ``files`` does."""
        return cls.has("edit") or cls.has("train")

    @classmethod
    def text_gate(cls, family: Family, concepts: Sequence[Concept], options: Any) -> Any:
        """Return the ``gate.text.TextGate`` that scores the words of prompts, None where the method has none; its
        options have ``false_alarms``. Of *family* it may ask for summaries of texts and for tokenizers alone."""
        return None

    @classmethod
    def check_sampling(cls, options: Any, generation: GenerationConfig) -> None:
        """Raise ``ConfigError`` where the method could do nothing, as pictures are to be sampled, or could not be right
        with prompts that are read so."""
        if not (cls.chunks or Reading.of(generation).plain) and (cls.has("condition") or cls.has("steer")):
            key = "long_prompts" if generation.long_prompts is not LongPrompts.truncate else "prompt_syntax"
            raise ConfigError(
                f"it knows nothing of prompts in chunks or with weights (Method.chunks), and generation.{key} is "
                f"{getattr(generation, key)}; leave that out"
            )
        if "guidance" in cls.requires and generation.guidance <= 1:
            raise ConfigError(
                f"it needs generation.guidance above 1, which is {generation.guidance:g}: without guidance there is no "
                "negative branch"
            )
