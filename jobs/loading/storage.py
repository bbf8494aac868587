"""Pictures of slow storage, as bytes: MB/s of our loader beside those of others, through one server, pass by pass."""

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from jobs.loading.corpora import make
from jobs.loading.decoding import BATCH
from jobs.loading.measured import medians, over
from jobs.loading.server import URL, Server, serving
from pipeline import Corpus, Loader
from pipeline.corpus import layout, open_store

LATENCY = 0.020  # seconds
FAST, SLOW = 200e6, 50e6  # bytes/s in all
CHUNK = 16 << 20  # bytes of a tar that are asked for at once
AT_ONCE = 4  # chunks under way
DIFFERENT = 200  # pictures, which take long to make; the others are the same once more


def from_s3(folder: Path, samples: int, rounds: int) -> dict[str, Any]:
    """Return MB/s, and requests for pictures per 100 MB of them, of ours and of webdataset's pipe."""
    return side_by_side(folder, samples, rounds, FAST, {"webdataset, pipe": piped})


def cold(folder: Path, samples: int, rounds: int) -> dict[str, Any]:
    """Return MB/s of ours, shuffled, and of reading the tars in large chunks: storage's own rate."""
    return side_by_side(folder, samples, rounds, SLOW, {"tars in large chunks": in_chunks})


def side_by_side(
    folder: Path, samples: int, rounds: int, rate: float, others: dict[str, Callable[[Path, Server], Iterator[int]]]
) -> dict[str, Any]:
    """Read all pictures of 1024x1024, with nothing cached, *rounds* times by each in turn, which of them is first too;
    rates are of the pictures' bytes."""
    path = Path(make(folder / f"pictures-1024-{samples}", 1024, samples, 6, kept=DIFFERENT))
    pictures = int(Corpus(path).index.rows["length"].sum())
    rates: dict[str, list[float]] = {name: [] for name in ("ours", *others)}
    requests: list[float] = []
    with serving(path, rate, LATENCY) as server:
        ways = {"ours": partial(ours, folder / "cold"), **{n: partial(way, path) for n, way in others.items()}}
        names = list(ways)
        for _ in range(rounds):
            for name in names:
                server.counted[0] = server.counted[1] = 0
                batches = ways[name](server)
                began = time.perf_counter()
                for _ in batches:
                    pass
                rates[name].append(pictures / 1e6 / (time.perf_counter() - began))
                if name == "ours":
                    requests.append(server.counted[0] / (pictures / 100e6))
            names.reverse()
    return {
        "latency_seconds": LATENCY,
        "rate_mb_per_second": rate / 1e6,
        "pictures_mb": round(pictures / 1e6, 1),
        "mb_per_second": medians(rates),
        "ours_over": over(rates),
        "requests_per_100_mb": medians({"ours": requests})["ours"],
    }


def ours(cache: Path, server: Server) -> Iterator[int]:
    """Open the corpus now, and read when iterated."""
    shutil.rmtree(cache, ignore_errors=True)
    corpus = Corpus(URL, decode="bytes", cache=cache, options=server.options)
    loader = Loader(corpus, BATCH, remainder="pad")
    return (len(batch["image"]) for batch in loader)


def in_chunks(path: Path, server: Server) -> Iterator[int]:
    """Every tar from its beginning to its end, nothing made of it."""
    store = open_store(URL, server.options)
    sizes = {f"{layout.TRAIN}/{tar.name}": tar.stat().st_size for tar in sorted((path / layout.TRAIN).glob("*.tar"))}
    ranges = [(name, at, min(CHUNK, size - at)) for name, size in sizes.items() for at in range(0, size, CHUNK)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(lambda one: len(store.read_range(*one)), ranges)


def piped(path: Path, server: Server) -> Iterator[int]:
    import webdataset as wds

    tars = sorted(tar.name for tar in (path / layout.TRAIN).glob("*.tar"))
    urls = [f"pipe:curl -s {server.endpoint}/bucket/corpus/{layout.TRAIN}/{tar}" for tar in tars]
    samples = wds.WebDataset(urls, shardshuffle=len(urls)).shuffle(1000).to_tuple("jpg", "txt")
    for batch in samples.batched(BATCH, collation_fn=list):
        yield len(batch)
