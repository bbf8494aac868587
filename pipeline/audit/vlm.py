"""A vision-language model of transformers as a judge: asked a question, it answers yes or no, with a probability.

The probability is that of all ways to write yes, over that of yes and no, in the logits of the answer's first token:
nothing is sampled. ShieldGemma 2 (Zeng et al., 2025) is asked in its own prompt, where a concept's question is the text
of the policy ("The image shall not contain ..."), and yes says that it is violated.

It sees what can be told in words, actions and relations too, at the cost of a pass of billions of weights a picture and
question; a judge of this kind is for witnesses and small corpora. What it says depends on how it is asked.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.audit.checkpoint import CheckpointDetector, in_own_queue
from pipeline.audit.questions import Questions, answers
from pipeline.concepts.term import Term
from pipeline.config.schema import DType
from pipeline.errors import ConfigError

SHIELD = {"shieldgemma2": "ShieldGemma2ForImageClassification"}
POLICY = "No {0}: The image shall not contain content that depicts {0}."  # after those that it was trained on
THRESHOLD = 0.5  # uncalibrated: yes is likelier than no


class VLM(CheckpointDetector):
    """Judges whatever a question can be asked about; a concept that is an identity only by the user's own question."""

    detector = "vlm"

    def __init__(
        self,
        device: str,
        model: str,
        revision: str | None = None,
        dtype: DType = DType.auto,
        batch: int = 4,
        questions: Mapping[str, str] | None = None,
    ):
        """*model* is a folder or a hub id; *questions* are by concept, for ShieldGemma policies. "auto" is bfloat16 on
        a GPU, in which such models are trained. Raises ``ConfigError``."""
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as CLASSES

        half = DType.bfloat16 if dtype is DType.auto and torch.device(device).type == "cuda" else dtype
        super().__init__(device, model, revision, half, batch)
        self.questions = Questions(self.detector, questions)
        known = {type_: names if isinstance(names, str) else names[0] for type_, names in CLASSES.items()} | SHIELD
        self.network = self.checkpoint.network(known, "answer questions about pictures", self.dtype, self.torch_device)
        self.processor = self.checkpoint.processor()
        self.is_shield = self.network.config.model_type in SHIELD
        if not getattr(self.processor, "chat_template", None):
            raise ConfigError(f"{self.checkpoint.where}: has no chat_template, which tells how it is asked")
        self.yes, self.no = ([], []) if self.is_shield else _tokens(self.checkpoint.where, self.processor.tokenizer)

    def knows(self, term: Term) -> bool:
        return self.questions.knows(term)

    def threshold(self, term: Term) -> float:
        return THRESHOLD

    @in_own_queue
    def score(self, images: np.ndarray, terms: Sequence[Term]) -> np.ndarray:
        scores = np.zeros((len(images), len(terms)), np.float32)
        start = 0
        for chunk in self.chunks(images):
            pictures = [Image.fromarray(image) for image in chunk]
            for t, term in enumerate(terms):  # one question at a time: all texts are of one length, and none is padded
                asked = self._shield if self.is_shield else self._ask
                scores[start : start + len(chunk), t] = asked(pictures, term).float().cpu().numpy()
            start += len(chunk)
        return scores

    def _ask(self, pictures: list[Image.Image], term: Term) -> torch.Tensor:
        content = [{"type": "image"}, {"type": "text", "text": self.questions.of(term)}]
        text = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = self.processor(
            text=[text] * len(pictures), images=[[picture] for picture in pictures], return_tensors="pt"
        )
        logits = self.network(**self._placed(inputs), logits_to_keep=1).logits[:, -1].float()
        yes, no = logits[:, self.yes].logsumexp(1), logits[:, self.no].logsumexp(1)
        likely: torch.Tensor = (yes - no).sigmoid()
        return likely

    def _shield(self, pictures: list[Image.Image], term: Term) -> torch.Tensor:
        policy = self.questions.own.get(term) or POLICY.format(" or ".join(term.words))
        inputs = self.processor(
            images=pictures, policies=["asked"], custom_policies={"asked": policy}, return_tensors="pt"
        )
        violated: torch.Tensor = self.network(**self._placed(inputs)).probabilities[:, 0]
        return violated

    def _placed(self, inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        device = self.torch_device
        return {k: v.to(device, self.dtype if v.is_floating_point() else None) for k, v in inputs.items()}


def _tokens(where: str, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the tokens with which an answer yes, and an answer no, begins."""
    yes, no = (
        {tokenizer(form, add_special_tokens=False)["input_ids"][0] for form in answers(word)} for word in ("yes", "no")
    )
    both = yes & no  # such as a blank of its own
    if not yes - both or not no - both:
        raise ConfigError(f"{where}: its tokenizer begins yes and no with the same token, so that neither can be read")
    return sorted(yes - both), sorted(no - both)
