"""Any image classifier of transformers as a detector: its labels stand for concepts (``labels``).

A softmax classifier (one class a picture) gives a concept the probabilities of its labels together, a sigmoid one
(problem_type "multi_label_classification") that of the likeliest. A classifier of ImageNet's 1,000 classes is known by
its labels, and they then have WordNet's ids. What has no label is not seen at all.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.audit.checkpoint import CheckpointDetector, in_own_queue
from pipeline.audit.imagenet import classes as imagenet_classes
from pipeline.audit.labels import Label, Labels
from pipeline.concepts.normal import normal
from pipeline.concepts.term import Kind, Term
from pipeline.config.schema import DType
from pipeline.errors import ConfigError

THRESHOLD = 0.5  # uncalibrated: likelier than all else, or, of a sigmoid, likelier than not


class Classifier(CheckpointDetector):
    """Judges the concepts that labels of its checkpoint stand for."""

    detector = "classifier"

    def __init__(
        self,
        device: str,
        model: str,
        revision: str | None = None,
        dtype: DType = DType.auto,
        batch: int = 32,
        labels: Mapping[str, Sequence[str]] | None = None,
        senses: Mapping[str, str] | None = None,
    ):
        """*model* is a folder or a hub id; *labels* gives a concept's labels, *senses* its meaning by WordNet's id.

        Raises ``ConfigError``.
        """
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as CLASSES

        super().__init__(device, model, revision, dtype, batch)
        # Of some types several classes classify: the first is the one that save_pretrained's name tells, if any.
        made = [name for name in self.checkpoint.config.get("architectures") or () if isinstance(name, str)]
        known = {type_: _chosen(names, made) for type_, names in CLASSES.items()}
        self.network = self.checkpoint.network(known, "classify pictures", self.dtype, self.torch_device)
        self.preparation = self.checkpoint.preparation()
        texts = self.network.config.id2label
        self.labels = Labels(self.detector, _labels([str(texts[i]) for i in range(len(texts))]), labels, senses)
        self.exclusive = self.network.config.problem_type != "multi_label_classification"
        if all(text == f"LABEL_{i}" for i, text in texts.items()) and not labels:
            raise ConfigError(
                f"{self.checkpoint.where}: its config.json names no labels (id2label); give them in the option labels, "
                "as in `labels: {nudity: [LABEL_1]}`"
            )

    def knows(self, term: Term) -> bool:
        return term.kind is not Kind.identity and bool(self.labels.columns(term))

    def threshold(self, term: Term) -> float:
        return THRESHOLD

    @in_own_queue
    def score(self, images: np.ndarray, terms: Sequence[Term]) -> np.ndarray:
        scores = np.zeros((len(images), len(terms)), np.float32)
        start = 0
        for chunk in self.chunks(images):
            logits = self.network(**self.preparation(chunk, self.torch_device, self.dtype)).logits.float()
            likely = (logits.softmax(1) if self.exclusive else logits.sigmoid()).cpu().numpy()  # (B, labels)
            for t, term in enumerate(terms):
                own = likely[:, self.labels.columns(term)]
                scores[start : start + len(chunk), t] = own.sum(1).clip(0, 1) if self.exclusive else own.max(1)
            start += len(chunk)
        return scores


def _chosen(names: str | tuple[str, ...], made: Sequence[str]) -> str:
    """Return the class that a checkpoint was *made* with, of those that transformers has for its type."""
    several = (names,) if isinstance(names, str) else names
    return next((name for name in several if name in made), several[0])


def _labels(texts: Sequence[str]) -> list[Label]:
    """Return the labels of these texts; those of ImageNet, in its order, with its ids."""
    known = imagenet_classes() if len(texts) == len(imagenet_classes()) else ()
    same = [_same(text, label) for text, label in zip(texts, known, strict=bool(known))] if known else []
    if same and sum(same) > 0.9 * len(same):  # some are called otherwise by some
        return [Label(text, label.id) for text, label in zip(texts, known, strict=True)]
    return [Label.read(text) for text in texts]


def _same(text: str, label: Label) -> bool:
    return not {normal(name) for name in Label.read(text).names}.isdisjoint(map(normal, label.names))
