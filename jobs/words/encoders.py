"""Text encoders as the experiments on words ask them: the states of a word in a sentence, of its end, of all of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.config.schema import ModelConfig
from pipeline.erasure.tokens import end_of_text, token_spans
from pipeline.errors import ConfigError
from pipeline.models.load import load_model

CHUNK = 128  # texts encoded at a time


class States(NamedTuple):
    """What an encoder makes of N texts, each ``(N, D)``: of the ``word`` that was asked about, the mean of its tokens'
    states; of the ``end`` of the text; of the ``text`` as a whole, where it has a vector for that."""

    word: Tensor
    end: Tensor
    text: Tensor | None


class Diorama:
    """The text encoder of the built-in model, which has no vector for a text beside that of its end."""

    name = "diorama"

    def __init__(self) -> None:
        self.family = load_model(ModelConfig(path="diorama"), torch.device("cpu")).family

    @torch.no_grad()
    def states(self, texts: Sequence[str], spans: Sequence[tuple[int, int]]) -> States:
        (stream,) = self.family.streams
        word, end = [], []
        for i in tqdm(range(0, len(texts), CHUNK), desc=self.name):
            embeds = self.family.encode(list(texts[i : i + CHUNK])).embeds.float()
            for text, span, own in zip(texts[i : i + CHUNK], spans[i : i + CHUNK], embeds, strict=True):
                (rows,) = token_spans(stream, text, [span])
                word.append(own[rows.start : rows.stop].mean(0))
                end.append(own[end_of_text(stream, text)])
        return States(torch.stack(word), torch.stack(end), None)


class SentenceEncoder:
    """A sentence encoder of BERT's kind in a folder: its vector of a text is the mean of all states, its end is [SEP].

    It has what a text gate asks of a model's family (``summary``, ``summaries``, ``pieces``). Raises ``ConfigError``
    where *folder* holds none.
    """

    def __init__(self, folder: Path):
        if not (folder / "config.json").is_file():
            raise ConfigError(f"{folder}: is no folder with a sentence encoder (config.json is missing)")
        from transformers import AutoModel, AutoTokenizer

        self.name = "all-MiniLM-L6-v2" if "MiniLM" in str(folder) else folder.name
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{folder}: holds no sentence encoder ({str(error).splitlines()[0]})") from error

    @torch.no_grad()
    def states(self, texts: Sequence[str], spans: Sequence[tuple[int, int]]) -> States:
        word, end, whole = [], [], []
        for i in tqdm(range(0, len(texts), CHUNK), desc=self.name):
            read = self._tokenizer(
                list(texts[i : i + CHUNK]), padding=True, return_tensors="pt", return_offsets_mapping=True
            )
            offsets = read.pop("offset_mapping")
            states, mask = self._model(**read)[0], read.attention_mask
            start, stop = torch.tensor(spans[i : i + CHUNK]).T[:, :, None]
            # Special tokens and padding have empty offsets.
            own = (offsets[..., 0] < offsets[..., 1]) & (offsets[..., 0] < stop) & (offsets[..., 1] > start)
            word.append(_mean(states, own))
            whole.append(_mean(states, mask))
            end.append(states[torch.arange(len(states)), mask.sum(1) - 1])
        return States(torch.cat(word), torch.cat(end), torch.cat(whole))

    def summary(self, text: str) -> Tensor:
        return self.summaries([text])[0]

    @torch.no_grad()
    def summaries(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors of *texts* ``(B, D)``."""
        read = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return _mean(self._model(**read)[0], read.attention_mask)

    def pieces(self, words: Sequence[str]) -> list[int]:
        """Return in how many tokens it reads each of *words*."""
        return [len(ids) for ids in self._tokenizer(list(words), add_special_tokens=False).input_ids]


def _mean(states: Tensor, own: Tensor) -> Tensor:
    """Return the mean of those *states* ``(B, T, D)`` that are *own* ``(B, T)``: ``(B, D)``."""
    weights = own.float() / own.sum(1, keepdim=True)
    return (states * weights[..., None]).sum(1)
