"""What a corpus is for: stream its shards into a training loop, here of a small CLIP-like model of picture and caption.

    python jobs/train_downstream.py out/quickstart [--epochs 5] [--batch 32] [--workers 1] [--storage KEY=VALUE]

The loop is any other: batches of `Loader`, nothing copied or unpacked beforehand. It prints the loss, pictures/s, and
the share of the time in which training waited for the loader. In a training of several processes each rank would have
its part of every batch from `Loader` itself.
"""

import argparse
import re
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from pipeline import Corpus, Loader
from pipeline.corpus.loader.arguments import expect_count
from pipeline.corpus.loader.transforms import resize
from pipeline.errors import LacunaError

SIDE = 64  # pixels, to which every picture is brought
BUCKETS = 4096  # of words, by hash: a vocabulary without a pass over the captions
WIDTH = 128


class TwoTowers(nn.Module):
    """A small convolutional network beside a bag of words, meeting in one space (Radford et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        channels = (3, 32, 64, 96, WIDTH)
        self.picture = nn.Sequential(
            *(
                layer
                for a, b in pairwise(channels)
                for layer in (nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.SiLU())
            ),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(WIDTH, WIDTH),
        )
        self.words = nn.EmbeddingBag(BUCKETS, WIDTH, mode="mean")
        self.scale = nn.Parameter(torch.tensor(10.0).log())

    def forward(self, pictures: Tensor, words: Tensor, starts: Tensor) -> Tensor:
        """Map pictures ``(B, 3, H, W)`` in 0..1 and their captions' words to similarities ``(B, B)``."""
        seen = normalize(self.picture(pictures * 2 - 1), dim=1)
        read = normalize(self.words(words, starts), dim=1)
        return self.scale.exp() * seen @ read.T


def small(sample: dict[str, Any]) -> dict[str, Any]:
    """Bring the picture of a sample to SIDE x SIDE, in the process that reads."""
    return {**sample, "image": resize(sample["image"], (SIDE, SIDE))}


def inputs(batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return pictures ``(B, 3, SIDE, SIDE)``, hashed words, where each caption's begin, and targets ``(B, B)``.

    Where captions of a batch are equal (several pictures of one prompt), each of them is as right as the other.
    """
    pictures = batch["image"].permute(0, 3, 1, 2).float() / 255
    texts = [re.findall(r"\w+", caption.lower()) for caption in batch["caption"]]
    starts = torch.tensor([0, *(len(text) for text in texts[:-1])]).cumsum(0)
    words = torch.tensor([zlib.crc32(word.encode()) % BUCKETS for text in texts for word in text], dtype=torch.long)
    same = torch.tensor([[float(a == b) for b in texts] for a in texts])
    return pictures, words, starts, same / same.sum(1, keepdim=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("path", help="a corpus: a folder or an s3://, gs:// or az:// URL")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1, help="processes that read (default 1)")
    parser.add_argument("--storage", metavar="KEY=VALUE", action="append", default=[], help="of the object store")
    args = parser.parse_args()
    for option in args.storage:
        if "=" not in option:
            parser.error(f"--storage {option}: expected KEY=VALUE")
    try:
        train(args.path, args.epochs, args.batch, args.workers, dict(option.split("=", 1) for option in args.storage))
    except LacunaError as error:
        sys.exit(f"train_downstream: {error}")


def train(path: str, epochs: int, batch: int, workers: int, options: dict[str, str]) -> tuple[float, float]:
    """Train over the corpus *epochs* times; return the mean loss of the first and of the last epoch."""
    expect_count("epochs", epochs, 1)
    corpus = Corpus(path, options=options)
    pictures = len(corpus)
    loader = Loader(corpus, batch, workers=workers, remainder="pad", transform=small)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = TwoTowers().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses: list[float] = []
    waited, trained, began = 0.0, 0, time.perf_counter()
    with tqdm(total=epochs * pictures, unit="img", mininterval=1) as bar:
        for epoch in range(epochs):
            total, seen = 0.0, 0
            for seconds, received in waiting(iter(loader)):
                images, words, starts, targets = (item.to(device) for item in inputs(received))
                similar = model(images, words, starts)
                loss = (cross_entropy(similar, targets) + cross_entropy(similar.T, targets.T)) / 2
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total, seen, waited = total + loss.item() * len(images), seen + len(images), waited + seconds
                bar.update(len(images))
                bar.set_description(f"epoch {epoch + 1}/{epochs}, loss {total / seen:.3f}")
            losses.append(total / seen)
            trained += seen
    seconds = time.perf_counter() - began
    print(
        f"{path}: {epochs} epochs of {pictures} pictures, loss {losses[0]:.3f} -> {losses[-1]:.3f}, "
        f"{trained / seconds:.0f} pictures/s, {waited / seconds:.0%} of the time waiting for the loader"
    )
    return losses[0], losses[-1]


def waiting(batches: Iterator[Any]) -> Iterator[tuple[float, Any]]:
    """Yield each batch with the seconds that it was waited for."""
    while True:
        started = time.perf_counter()
        items = next(batches, None)
        if items is None:
            return
        yield time.perf_counter() - started, items


if __name__ == "__main__":
    main()
