"""Samples per CPU second, from tars on disk to batches of uint8 tensors, of our loader and of others."""

import io
import json
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image

from jobs.loading.corpora import make
from jobs.loading.measured import cpu_rates, medians, over
from pipeline import Corpus, Loader
from pipeline.corpus import finish, layout

BATCH = 32


def decoding(folder: Path, samples: int, rounds: int) -> dict[str, Any]:
    result = {}
    for side, count in ((256, samples), (1024, samples // 16)):
        path = make(folder / f"pictures-{side}-{count}", side, count, 6)
        finish(path)
        contenders: dict[str, Callable[[], Iterator[int]]] = {
            "ours": partial(ours, path),
            "webdataset, simplejpeg": partial(webdataset, path, fast),
            "wids, simplejpeg": partial(wids, path, fast),
            "HF streaming, simplejpeg": partial(hf_streaming, path, fast),
            "webdataset, Pillow": partial(webdataset, path, slow),
            "wids, Pillow": partial(wids, path, slow),
            "HF streaming, Pillow": partial(hf_streaming, path, slow),
        }
        for name, contender in OPTIONAL.items():
            with suppress(ImportError):
                next(contender(path))
                contenders[name] = partial(contender, path)
        rates = cpu_rates(contenders, count, rounds)
        result[f"{side}x{side}"] = {"samples_per_cpu_second": medians(rates), "ours_over": over(rates)}
    return result


def fast(data: bytes) -> torch.Tensor:
    return torch.from_numpy(simplejpeg.decode_jpeg(data, "RGB"))


def slow(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB")))


def together(samples: list[tuple[torch.Tensor, str]]) -> tuple[torch.Tensor, list[str]]:
    return torch.stack([image for image, _ in samples]), [caption for _, caption in samples]


def ours(path: str) -> Iterator[int]:
    for batch in Loader(Corpus(path), BATCH, remainder="pad"):
        yield len(batch["image"])


def webdataset(path: str, decode: Callable[[bytes], torch.Tensor]) -> Iterator[int]:
    import webdataset as wds

    tars = sorted(map(str, Path(path, layout.TRAIN).glob("*.tar")))
    samples = wds.WebDataset(tars, shardshuffle=len(tars)).shuffle(1000)
    pairs = samples.map(lambda sample: (decode(sample["jpg"]), sample["txt"].decode()))
    for images, _ in pairs.batched(BATCH, collation_fn=together):
        yield len(images)


def wids(path: str, decode: Callable[[bytes], torch.Tensor]) -> Iterator[int]:
    import wids as library

    tars = sorted(Path(path, layout.TRAIN).glob("*.tar"))
    shards = [{"url": str(tar), "nsamples": count_of(tar)} for tar in tars]
    dataset = library.ShardListDataset(shards, transformations=[], cache_size=int(1e12))
    order = list(library.ChunkedSampler(dataset, chunksize=1000, shuffle=True))
    for start in range(0, len(order), BATCH):
        samples = [dataset[i] for i in order[start : start + BATCH]]
        images, _ = together([(decode(s[".jpg"].read()), s[".txt"].read().decode()) for s in samples])
        yield len(images)


def count_of(tar: Path) -> int:
    commit = tar.parents[1] / layout.commit(int(tar.stem))
    return int(json.loads(commit.read_text())["counts"]["ok"])


def hf_streaming(path: str, decode: Callable[[bytes], torch.Tensor]) -> Iterator[int]:
    import datasets

    files = sorted(map(str, Path(path, layout.TRAIN).glob("*.tar")))
    stream = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)
    stream = stream.cast_column("jpg", datasets.Image(decode=False)).shuffle(
        seed=random.randrange(1000), buffer_size=1000
    )
    batch = []
    for sample in stream:
        batch.append((decode(sample["jpg"]["bytes"]), sample["txt"]))
        if len(batch) == BATCH:
            yield len(together(batch)[0])
            batch = []
    if batch:
        yield len(together(batch)[0])


# Of the extra "readers"


def energon(path: str, decode: Callable[[bytes], torch.Tensor]) -> Iterator[int]:
    from megatron.energon import DefaultTaskEncoder, WorkerConfig, get_loader, get_train_dataset

    links = Path(f"{path}-energon")
    if not links.exists():
        links.mkdir()
        for tar in Path(path, layout.TRAIN).glob("*.tar"):
            (links / tar.name).symlink_to(tar.resolve())
        kind = ["--sample-type", "CaptioningSample", "--field-map", '{"image": "jpg", "caption": "txt"}']
        prepare = ["energon", "prepare", str(links), "--non-interactive", "--split-ratio", "1,0,0"]
        subprocess.run([*prepare, *kind], check=True, stdout=subprocess.DEVNULL)

    class Decoding(DefaultTaskEncoder):  # type: ignore[misc]
        decoder = None

        def encode_sample(self, sample: Any) -> Any:
            sample.image = decode(sample.image)
            return sample

    worker = WorkerConfig(rank=0, world_size=1, num_workers=0)
    dataset = get_train_dataset(
        str(links), batch_size=BATCH, shuffle_buffer_size=1000, max_samples_per_sequence=100, worker_config=worker,
        task_encoder=Decoding(),
    )  # fmt: skip
    left = sum(map(count_of, Path(path, layout.TRAIN).glob("*.tar")))
    for batch in get_loader(dataset):  # without an end
        yield (count := min(left, len(batch.image)))
        left -= count
        if not left:
            return


def dali(path: str) -> Iterator[int]:
    """On the CPU, with a decoder of its own, on the thread that asks and one more."""
    from nvidia.dali import fn, pipeline_def

    indexes = sorted(map(str, Path(path, layout.INDEX).glob("*.idx")))
    tars = [f"{path}/{layout.TRAIN}/{Path(index).stem}.tar" for index in indexes]

    @pipeline_def(
        batch_size=BATCH, num_threads=1, device_id=None, prefetch_queue_depth=1, exec_pipelined=False, exec_async=False
    )  # type: ignore[untyped-decorator]
    def pictures() -> Any:
        image, caption = fn.readers.webdataset(
            paths=tars, index_paths=indexes, ext=["jpg", "txt"], random_shuffle=True, initial_fill=1000, name="reader"
        )
        return fn.decoders.image(image, device="cpu"), caption

    pipeline = pictures()
    pipeline.build()
    left = pipeline.epoch_size("reader")
    while left > 0:
        images, _ = pipeline.run()
        count = min(left, len(torch.from_numpy(images.as_array())))
        yield count
        left -= count


OPTIONAL: dict[str, Callable[[str], Iterator[int]]] = {
    "Energon, simplejpeg": partial(energon, decode=fast),
    "Energon, Pillow": partial(energon, decode=slow),
    "DALI, its own": dali,
}
