"""Trains the text encoder, text alone, against the ground truth of the world; the UNet then finds it frozen, as in SD.

Every token that ends the name of an object (or a synonym, or a plural) learns which object it names, its family, the
very word, what it looks like (an 8x8 thumbnail), and whether it is the first, second or third that is named: so
"kitten" lies near "cat", and "tiger" nearer than "church". The end mark and the padding after it learn the whole scene:
objects, their number, who is left, in the middle and right, background, style. Implied scenes are learnt there.
Attention is causal, as in CLIP.

Without the order a UNet that saw 70,000 pictures drew "a lion and a bus" as two buses more often than not: both places
have to agree on who goes where, and nothing in the text told them.
"""

import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import cross_entropy, mse_loss
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from pipeline.diorama.lexicon import BACKGROUNDS, FAMILIES, OBJECTS, STYLES, SYNONYMS, family_of, plural
from pipeline.diorama.networks import TEXT_LENGTH, TEXT_WIDTH, text_encoder
from pipeline.diorama.optimizer import Average, optimizers, schedule, take_step
from pipeline.diorama.render import sticker
from pipeline.diorama.settings import Settings, record
from pipeline.diorama.tokenizer import train_tokenizer
from pipeline.diorama.world import PLAIN, Scene, sample_scene

_LOOKS = 8 * 8 * 3
_IGNORED = -100
_COLUMNS = {0: "left", 16: "middle", 32: "right"}  # by a sticker's left edge
_NEAR = 2.0  # weight of staying near the encoder that training starts from
_STYLES = (PLAIN, *STYLES)
_FAMILIES = tuple(FAMILIES)


class Heads(nn.Module):
    """Linear readings of the embeddings (B, T, 128); thrown away after training."""

    def __init__(self, words: int) -> None:
        super().__init__()
        sizes = {
            "named": len(OBJECTS) + 1, "family": len(_FAMILIES) + 1, "word": words + 1, "looks": _LOOKS,
            "order": 4, "shown": len(OBJECTS), "count": 4, **dict.fromkeys(_COLUMNS.values(), len(OBJECTS) + 1),
            "background": len(BACKGROUNDS), "style": len(_STYLES),
        }  # fmt: skip
        self.readings = nn.ModuleDict({name: nn.Linear(TEXT_WIDTH, size) for name, size in sizes.items()})

    def forward(self, embeddings: Tensor) -> dict[str, Tensor]:
        """Every reading of every token: name to (B, T, size)."""
        return {name: reading(embeddings) for name, reading in self.readings.items()}


class Lexicon:
    """Finds the tokens that end a name, by longest match of token ids."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        words = [(word, name) for name in OBJECTS for word in (name, *SYNONYMS.get(name, ()))]
        self.words = tuple(word for word, _ in words)
        self._names: dict[tuple[int, ...], tuple[int, int]] = {}
        for index, (word, name) in enumerate(words):
            for form in (plural(word), word):
                ids = tuple(tokenizer(form, add_special_tokens=False).input_ids)
                self._names[ids] = (OBJECTS.index(name), index)
        self._longest = max(map(len, self._names))

    def find(self, ids: list[int]) -> list[tuple[int, int, int]]:
        """(position of the last token, object, word) of every name in *ids*."""
        found, position = [], 0
        while position < len(ids):
            for length in range(self._longest, 0, -1):
                hit = self._names.get(tuple(ids[position : position + length]))
                if hit:
                    found.append((position + length - 1, *hit))
                    position += length - 1
                    break
            position += 1
        return found


def targets(scenes: list[Scene], ids: list[list[int]], lexicon: Lexicon) -> dict[str, Tensor]:
    """Ground truth of a batch: per token (B, T) for names, per scene (B,) or (B, 64) for the whole."""
    shape = (len(scenes), TEXT_LENGTH)
    named, word, family, order = (np.zeros(shape, np.int64) for _ in range(4))
    shown = np.zeros((len(scenes), len(OBJECTS)), np.float32)
    columns = {name: np.zeros(len(scenes), np.int64) for name in _COLUMNS.values()}
    for row, scene in enumerate(scenes):
        for number, (position, place, index) in enumerate(lexicon.find(ids[row]), start=1):
            named[row, position], word[row, position] = place + 1, index + 1
            order[row, position] = min(number, 3)
            family[row, position] = _FAMILIES.index(family_of(OBJECTS[place])) + 1
        for name in scene.objects:
            shown[row, OBJECTS.index(name)] = 1
        for name, (x, _) in zip(scene.objects, scene.corners, strict=True):
            columns[_COLUMNS[x]][row] = OBJECTS.index(name) + 1
    return {
        "named": torch.from_numpy(named), "word": torch.from_numpy(word), "family": torch.from_numpy(family),
        "order": torch.from_numpy(order), "shown": torch.from_numpy(shown),
        **{name: torch.from_numpy(column) for name, column in columns.items()},
        "count": torch.tensor([len(scene.objects) for scene in scenes]),
        "background": torch.tensor([BACKGROUNDS.index(scene.background) for scene in scenes]),
        "style": torch.tensor([_STYLES.index(scene.style) for scene in scenes]),
    }  # fmt: skip


def reading_loss(readings: dict[str, Tensor], truth: dict[str, Tensor], ids: Tensor, end: int, looks: Tensor) -> Tensor:
    """Sum of all readings' losses. *ids* is (B, T); *looks* is (64, 192), the thumbnails."""
    after = (ids == end).cumsum(dim=1) > 0  # the end mark and the padding, (B, T)
    names = truth["named"] > 0
    loss = torch.zeros((), device=ids.device)
    for name, weight in (("named", 1.0), ("family", 0.5), ("word", 0.5), ("order", 1.0)):
        loss = loss + weight * cross_entropy(readings[name][~after], truth[name][~after])
    loss = loss + 2.0 * mse_loss(readings["looks"][names], looks[truth["named"][names] - 1])
    rows = after.nonzero()[:, 0]
    loss = loss + 20.0 * bce(readings["shown"][after], truth["shown"][rows])
    for name in ("count", *_COLUMNS.values(), "background", "style"):
        loss = loss + cross_entropy(readings[name][after], truth[name][rows])
    return loss


def thumbnails() -> Tensor:
    """What each object looks like, for the text encoder: (64, 192), roughly in -1..1."""
    tiles = []
    for name in OBJECTS:
        pixels = sticker(name)
        flat = pixels[..., :3] * pixels[..., 3:] + 0.5 * (1 - pixels[..., 3:])
        small = Image.fromarray((flat * 255).astype(np.uint8)).resize((8, 8), Image.Resampling.BOX)
        tiles.append(np.asarray(small, np.float32).reshape(-1) / 127.5 - 1)
    return torch.from_numpy(np.stack(tiles))


def train_text(settings: Settings) -> None:
    """Train tokenizer and text encoder and save them to ``<folder>/tokenizer`` and ``/text_encoder``, unless there."""
    target = settings.path / "text_encoder"
    if target.exists():
        return
    torch.manual_seed(settings.seed)
    first: CLIPTextModel | None = None
    if settings.start_from:
        tokenizer = CLIPTokenizer.from_pretrained(Path(settings.start_from) / "tokenizer")
        first = CLIPTextModel.from_pretrained(Path(settings.start_from) / "text_encoder").to(settings.device)
    else:
        tokenizer = train_tokenizer()
    tokenizer.save_pretrained(settings.path / "tokenizer")
    lexicon, looks = Lexicon(tokenizer), thumbnails().to(settings.device)
    encoder = text_encoder(tokenizer).to(settings.device)
    if first is not None:
        encoder.load_state_dict(first.state_dict())
    heads = Heads(len(lexicon.words)).to(settings.device)
    parts = optimizers(nn.ModuleDict({"encoder": encoder, "head": heads}), settings.text.lr)
    average = Average(encoder, 0.998)
    size, started = settings.text.batch_size, time.monotonic()
    steps = settings.text.samples // size
    progress = tqdm(range(steps), desc="text encoder", mininterval=10)
    for step in progress:
        scenes = [sample_scene(seed) for seed in range(step * size, (step + 1) * size)]
        listed = tokenize(tokenizer, [scene.caption for scene in scenes])
        ids = torch.tensor(listed, device=settings.device)
        truth = {name: value.to(settings.device) for name, value in targets(scenes, listed, lexicon).items()}
        embeddings = encoder(ids).last_hidden_state
        readings = heads(embeddings)
        loss = reading_loss(readings, truth, ids, tokenizer.eos_token_id, looks)
        if first is not None:  # a UNet that knows the first one's embeddings is to go on with these
            with torch.no_grad():
                before = first(ids).last_hidden_state
            loss = loss + _NEAR * mse_loss(embeddings, before)
        loss.backward()
        take_step(parts, settings.text.lr * schedule(step, steps, decay_share=0.5))
        average.update(encoder)
        if step % 50 == 0:
            end = ids.argmax(dim=1)
            guess = readings["shown"][torch.arange(size), end] > 0
            right = (guess == (truth["shown"] > 0)).all(dim=1).float().mean()
            names = truth["order"] > 0
            ordered = (readings["order"][names].argmax(-1) == truth["order"][names]).float().mean()
            progress.set_postfix(
                loss=f"{loss:.3f}", scenes_read=f"{right:.3f}", ordered=f"{ordered:.3f}", refresh=False
            )
    encoder.load_state_dict(average.weights)
    encoder.save_pretrained(target)
    minutes = round((time.monotonic() - started) / 60)
    record(settings, "text encoder", {"captions seen": settings.text.samples, "minutes": minutes})


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> list[list[int]]:
    """Ids of captions, cut or padded to 32 each, as StableDiffusionPipeline does it."""
    ids: list[list[int]] = tokenizer(captions, padding="max_length", max_length=TEXT_LENGTH, truncation=True).input_ids
    return ids
