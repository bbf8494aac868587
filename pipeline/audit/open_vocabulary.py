"""Detection of whatever words name: OWLv2, OWL-ViT, Grounding DINO and MM-Grounding-DINO, with a box of each thing.

A concept's score is that of its best box for any of its words, and the box is that one, whether or not it counts.

- OWL-ViT and OWLv2 (Minderer et al., ECCV 2022 and NeurIPS 2023) give each box a sigmoid for each text, alone.
- Grounding DINO (Liu et al., ECCV 2024; MM-Grounding-DINO, Zhao et al., 2024) reads one caption, "cat. dog.", and gives
  each box a sigmoid for each token; a word's score is the mean over its tokens. What else stands in the caption sways
  it a little, so scores hold for one list. A list that is longer than the caption may be is asked in several.

It sees things of some size that have a name. Styles, identities and policies are not its kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.audit.checkpoint import CheckpointDetector, in_own_queue
from pipeline.audit.detector import Sight
from pipeline.concepts.term import Kind, Term
from pipeline.config.schema import DType
from pipeline.errors import ConfigError

OWL = {"owlv2": "Owlv2ForObjectDetection", "owlvit": "OwlViTForObjectDetection"}
GROUNDING = {
    "grounding-dino": "GroundingDinoForObjectDetection",
    "mm-grounding-dino": "MMGroundingDinoForObjectDetection",
}
# Uncalibrated: of what their authors list boxes from (OWL 0.1, Grounding DINO 0.3), some more for the former, whose
# best of some thousand boxes is over 0.1 in many a picture without the thing.
OWL_THRESHOLD, GROUNDING_THRESHOLD = 0.2, 0.3
_FIELD = "{}"


@dataclass(frozen=True)
class Caption:
    """What Grounding DINO reads at once: tokens ``(1, L)`` by name, and the tokens of each word in it."""

    tokens: dict[str, Tensor]
    places: dict[str, list[int]]


class OpenVocabulary(CheckpointDetector):
    """Judges objects by their words, and tells where they are."""

    detector = "open_vocabulary"

    def __init__(
        self,
        device: str,
        model: str,
        revision: str | None = None,
        dtype: DType = DType.auto,
        batch: int = 8,
        template: str = "a photo of a {}",
    ):
        """*model* is a folder or a hub id; *template* is what OWL reads of a word. Raises ``ConfigError``."""
        super().__init__(device, model, revision, dtype, batch)
        if template.count(_FIELD) != 1:
            raise ConfigError(
                f"{self.detector}: template: {template!r}: expected {_FIELD} once, in the place of the word"
            )
        self.template = template
        classes = OWL | GROUNDING
        self.network = self.checkpoint.network(classes, "find things by their names", self.dtype, self.torch_device)
        self.tokenizer = self.checkpoint.tokenizer()
        self.preparation = self.checkpoint.preparation()
        self.is_owl = self.network.config.model_type in OWL
        self._texts: dict[tuple[str, ...], Tensor] = {}
        self._captions: dict[tuple[str, ...], list[Caption]] = {}

    def knows(self, term: Term) -> bool:
        return term.kind is Kind.object

    def threshold(self, term: Term) -> float:
        return OWL_THRESHOLD if self.is_owl else GROUNDING_THRESHOLD

    def score(self, images: np.ndarray, terms: Sequence[Term]) -> np.ndarray:
        return self.see(images, terms).scores

    @in_own_queue
    def see(self, images: np.ndarray, terms: Sequence[Term]) -> Sight:
        words = tuple(dict.fromkeys(word for term in terms for word in term.words))
        scores = np.zeros((len(images), len(terms)), np.float32)
        boxes = np.full((len(images), len(terms), 4), np.nan, np.float32)
        start = 0
        for chunk in self.chunks(images):
            found, places = self._best(chunk, words)  # (B, W) and (B, W, 4)
            for t, term in enumerate(terms):
                columns = [words.index(word) for word in term.words]
                best = found[:, columns].argmax(1)
                rows, columns_of_best = np.arange(len(chunk)), np.asarray(columns)[best]
                scores[start : start + len(chunk), t] = found[rows, columns_of_best]
                boxes[start : start + len(chunk), t] = places[rows, columns_of_best]
            start += len(chunk)
        return Sight(scores, boxes)

    def _best(self, images: np.ndarray, words: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return the best score of each word, ``(B, W)``, and its box in pixels, ``(B, W, 4)``."""
        inputs = self.preparation(images, self.torch_device, self.dtype)
        scores, boxes = self._owl(inputs, words) if self.is_owl else self._grounding(inputs, words)
        height, width = images.shape[1:3]
        steps = self.preparation.steps
        padded = steps is not None and steps.square  # a square's side is 1 then
        wide, high = (max(height, width),) * 2 if padded else (width, height)
        half = boxes[..., 2:] / 2
        corners = torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)  # from centre and size
        corners = corners * torch.tensor([wide, high, wide, high], device=corners.device)
        corners = corners.clamp(min=0).minimum(torch.tensor([width, height, width, height], device=corners.device))
        return scores.cpu().numpy(), corners.cpu().numpy()

    def _owl(self, inputs: dict[str, Tensor], words: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        if words not in self._texts:
            texts = [self.template.replace(_FIELD, word) for word in words]
            longest = self.network.config.text_config.max_position_embeddings
            read = self.tokenizer(texts, padding="max_length", truncation=True, max_length=longest, return_tensors="pt")
            self._texts = {words: read["input_ids"].to(self.torch_device)}
        count = len(inputs["pixel_values"])
        # Without an attention mask: what follows the end of a text cannot sway it, since attention looks back only.
        found = self.network(**inputs, input_ids=self._texts[words].repeat(count, 1))
        best, at = found.logits.float().sigmoid().max(1)  # over boxes: (B, W)
        return best, _taken(found.pred_boxes, at)

    def _grounding(self, inputs: dict[str, Tensor], words: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        if words not in self._captions:
            self._captions = {words: self._read(words)}
        scores: dict[str, Tensor] = {}
        boxes: dict[str, Tensor] = {}
        for caption in self._captions[words]:
            count = len(inputs["pixel_values"])
            tokens = {key: value.repeat(count, 1) for key, value in caption.tokens.items()}
            found = self.network(**inputs, **tokens)
            by_token = found.logits.float().sigmoid()  # (B, boxes, tokens)
            for word, places in caption.places.items():
                scores[word], at = by_token[..., places].mean(-1).max(1)
                boxes[word] = _taken(found.pred_boxes, at[:, None])[:, 0]
        return torch.stack([scores[w] for w in words], 1), torch.stack([boxes[w] for w in words], 1)

    def _read(self, words: Sequence[str]) -> list[Caption]:
        """Put *words* into as few captions as hold them."""
        captions: list[Caption] = []
        rest = list(words)
        longest = self.network.config.max_text_len
        while rest:
            count = len(rest)
            while count > 1 and len(self.tokenizer(_caption(rest[:count]))["input_ids"]) > longest:
                count -= 1
            captions.append(self._caption(rest[:count]))
            rest = rest[count:]
        return captions

    def _caption(self, words: Sequence[str]) -> Caption:
        text, start = _caption(words), 0
        read = self.tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
        offsets = read.pop("offset_mapping")[0].tolist()
        places: dict[str, list[int]] = {}
        for word in words:
            stop = start + len(_phrase(word))
            places[word] = [i for i, (a, b) in enumerate(offsets) if a < b and start <= a and b <= stop]
            if not places[word] or places[word][-1] >= self.network.config.max_text_len:
                raise ConfigError(f"{self.checkpoint.where}: cannot read {word!r}: it is too long, or has no letters")
            start = stop + 2
        return Caption({key: value.to(self.torch_device) for key, value in read.items()}, places)


def _phrase(word: str) -> str:
    """Return *word* as captions have it: in small letters, and without the sign that parts them."""
    return " ".join(word.lower().replace(".", " ").split())


def _caption(words: Sequence[str]) -> str:
    return ". ".join(map(_phrase, words)) + "."


def _taken(boxes: Tensor, at: Tensor) -> Tensor:
    """Return of boxes ``(B, N, 4)`` those at ``(B, W)``: ``(B, W, 4)``, float32."""
    return boxes.float().gather(1, at[..., None].expand(-1, -1, 4))
