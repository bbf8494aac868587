"""What reading a corpus into training costs, beside others on the same shards; ratios are of one interleaved run.

    python jobs/bench_loader.py [--samples 3000] [--rounds 5] [--only decode,index,memory,s3] [--results FILE]

- decode: samples per CPU second of one process, uint8 tensors of 256x256 and 1024x1024 JPEG, shuffled and batched. Each
  of the others once with our decoder (simplejpeg), and once with the one that it has by itself (Pillow).
- index: seconds from nothing to the first sample of 10^6 rows, and from nothing to an opened corpus of 10^7 rows, in
  shards of 1,024: of a corpus that is not finished, of one that is (10^6), and again with the index that is there. In a
  process of its own, imports not counted.
- memory: what the index of 10^6 rows adds, as proportional set size, to one process and to one with 4 forked workers.
- s3: pictures of a server that answers after 20 ms and gives 200 MB/s in all, as bytes: MB/s and requests per 100 MB,
  beside webdataset's `pipe:curl` over the same server.

Energon and DALI are not among the others: neither is in the development environment.
"""

import argparse
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pyarrow as pa
import simplejpeg
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from pipeline import Corpus, Loader
from pipeline.config.schema import ImageFormat
from pipeline.corpus import ManifestRow, RunRecord, Status, commit_shard, create_run_record, finish, layout, open_store
from pipeline.corpus.encode import encode_image
from pipeline.errors import nearest
from pipeline.evaluation.results import add_results_option, machine, write_result

BATCH = 32
LATENCY, RATE = 0.020, 200e6  # seconds, bytes/s
PARTS = ("decode", "index", "memory", "s3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=3000, help="pictures of 256x256; a sixteenth of 1024x1024")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--folder", type=Path, default=Path("out/bench-loader"))
    add_results_option(parser)
    parser.add_argument("--child", choices=("first", "open", "memory"), help=argparse.SUPPRESS)
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for part in args.only.split(","):
        if part not in PARTS:
            parser.error(f"--only {part}: expected some of {','.join(PARTS)}{nearest(part, PARTS)}")
    for name, least in (("samples", 64), ("rounds", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name} {getattr(args, name)}: expected {least} or more")
    torch.set_num_threads(1)
    os.environ["XDG_CACHE_HOME"] = str(args.folder.absolute() / "home")
    if args.child:
        print(json.dumps(CHILDREN[args.child](args.corpus)))
        return
    here, figures = machine(), {}
    measures: dict[str, Callable[[], Any]] = {
        "decode": lambda: decoding(args.folder, args.samples, args.rounds),
        "index": lambda: indexes(args.folder),
        "memory": lambda: memory(args.folder),
        "s3": lambda: from_s3(args.folder, args.samples // 8, args.rounds),
    }
    for part in args.only.split(","):
        figures[part] = measures[part]()
        print(json.dumps({part: figures[part]}, indent=1), flush=True)
    if args.results:
        what = "Reading a corpus into training: CPU, opening, memory and requests, beside others on one machine"
        config = {"samples": args.samples, "rounds": args.rounds, "batch": BATCH}
        write_result(args.results, what=what, config=config, figures=figures, environment=here)


# The corpora


def picture(number: int, side: int) -> np.ndarray:
    """A picture (side, side, 3) whose JPEG is as large as a photograph's: soft colours under a fine grain."""
    draw = np.random.default_rng(number)
    soft = Image.fromarray(draw.integers(0, 256, (side // 32, side // 32, 3), np.uint8))
    grain = draw.normal(0, 4, (side, side, 1))
    return (np.asarray(soft.resize((side, side), Image.Resampling.BICUBIC)) + grain).clip(0, 255).astype(np.uint8)


def make(path: Path, side: int, samples: int, shards: int, kept: int | None = None) -> str:
    """Commit *samples* pictures in so many shards. Of *kept* pictures each is there several times."""
    if (path / layout.CARD).exists():
        return str(path)
    shutil.rmtree(path, ignore_errors=True)
    store, evidence = open_store(str(path)), open_store(f"{path}.evidence")
    create_run_record(store, run_record(shards, samples))
    encoded = [encode_image(picture(n, side), ImageFormat.jpg, 90) for n in range(kept or samples)]
    numbers = np.array_split(np.arange(samples), shards)
    for shard, own in enumerate(numbers):
        keys = [f"{shard:06d}{i:05d}" for i in range(len(own))]
        rows = [
            ManifestRow(
                key=key, shard=shard, prompt=f"a picture of the number {n}", caption=f"a picture of the number {n}",
                seed=int(n), width=side, height=side, status=Status.ok,
            )
            for key, n in zip(keys, own, strict=True)
        ]  # fmt: skip
        images = {key: encoded[n % len(encoded)] for key, n in zip(keys, own, strict=True)}
        commit_shard(
            store, evidence, shard=shard, attempt=f"a{shard}", rows=rows, images=images, columns=None,
            identity="d" * 64, environment={}, timings={}, corpus_format=layout.FORMAT,
        )  # fmt: skip
    store.write(layout.CARD, b"made for a benchmark\n")  # last: it is whole
    return str(path)


def run_record(shards: int, samples: int) -> RunRecord:
    config = {
        "model": {"path": "none", "dtype": "float32"}, "generation": {"steps": 1, "guidance": 1.0},
        "erasure": {"concepts": []}, "output": {"path": "none", "image_format": "jpg"},
        "audit": {"detectors": [], "policy": "keep", "captions": "keep"},
    }  # fmt: skip
    return RunRecord(
        digest="d" * 64, identity={}, config=config, batch_size=1, recipe={}, model_revision="", environment={},
        samples=samples, shards=shards, samples_per_shard=-(-samples // shards), column_schema=pa.schema([]),
    )  # fmt: skip


def repeated(path: Path, shards: int) -> str:
    """A corpus of so many equal shards of 1,024 small pictures: links to the files of one."""
    if (path / layout.CARD).exists():
        return str(path)
    one = Path(make(path.parent / "one", 64, 1024, 1))
    for folder in (layout.TRAIN, layout.MANIFESTS, layout.COMMITS):
        (path / folder).mkdir(parents=True, exist_ok=True)
    commit = (one / layout.commit(0)).read_text()
    for shard in range(shards):
        for name in (layout.tar, layout.manifest):
            os.link(one / name(0), path / name(shard))
        (path / layout.commit(shard)).write_text(
            commit.replace("/000000.", f"/{shard:06d}.").replace('"shard": 0,', f'"shard": {shard},')
        )
    create_run_record(open_store(str(path)), run_record(shards, shards * 1024))
    (path / layout.CARD).write_text("made for a benchmark\n")
    return str(path)


# Samples per CPU second


def decoding(folder: Path, samples: int, rounds: int) -> dict[str, Any]:
    result = {}
    for side, count in ((256, samples), (1024, samples // 16)):
        path = make(folder / f"pictures-{side}-{count}", side, count, 6)
        contenders: dict[str, Callable[[], Iterator[int]]] = {
            "ours": partial(ours, path),
            "webdataset, simplejpeg": partial(webdataset, path, fast),
            "wids, simplejpeg": partial(wids, path, fast),
            "HF streaming, simplejpeg": partial(hf_streaming, path, fast),
            "webdataset, Pillow": partial(webdataset, path, slow),
            "wids, Pillow": partial(wids, path, slow),
            "HF streaming, Pillow": partial(hf_streaming, path, slow),
        }
        rates = interleaved(contenders, rounds)
        result[f"{side}x{side}"] = {
            "samples_per_cpu_second": {name: round(statistics.median(all_), 1) for name, all_ in rates.items()},
            "ours_over": {
                name: round(statistics.median(a / b for a, b in zip(rates["ours"], all_, strict=True)), 3)
                for name, all_ in rates.items()
                if name != "ours"
            },
        }
    return result


def interleaved(contenders: dict[str, Callable[[], Iterator[int]]], rounds: int) -> dict[str, list[float]]:
    """Return samples per CPU second of each, round by round; a first round only warms up."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            batches = contender()
            began, seen = time.process_time(), sum(batches)
            if number:
                rates[name].append(seen / (time.process_time() - began))
    return rates


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


# Opening and memory


def indexes(folder: Path) -> dict[str, Any]:
    result = {}
    for rows, what in ((1_000_000, "first"), (10_000_000, "open")):
        path = repeated(folder / f"rows-{rows}", -(-rows // 1024))
        shutil.rmtree(f"{path}/{layout.INDEX}", ignore_errors=True)
        shutil.rmtree(folder / "home", ignore_errors=True)
        result[f"{rows}"] = {"unfinished": child(folder, what, path), "again": child(folder, what, path)}
        if what == "first":
            finish(path)
            shutil.rmtree(folder / "home")
            result[f"{rows}"]["finished"] = child(folder, what, path)
    return result


def child(folder: Path, what: str, path: str) -> Any:
    command = [sys.executable, __file__, "--child", what, "--corpus", path, "--folder", str(folder)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def seconds_to_first(path: str) -> dict[str, float]:
    began, cpu = time.perf_counter(), time.process_time()
    batch = next(iter(Loader(Corpus(path), BATCH)))
    assert len(batch["caption"]) == BATCH
    return {
        "seconds_to_first_batch": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }


def seconds_to_open(path: str) -> dict[str, float]:
    began, cpu = time.perf_counter(), time.process_time()
    rows = len(Corpus(path))
    return {
        "rows": rows,
        "seconds_to_open": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }


def memory(folder: Path) -> Any:
    return child(folder, "memory", repeated(folder / "rows-1000000", 977))


def proportional(path: str) -> dict[str, float]:
    """Return MB that the opened index adds to a process, and to one with 4 workers, all of its rows touched."""
    Corpus(path)  # the index is made
    empty_one, empty_five = sum(pss(0, None)), sum(pss(4, None))
    one, five = sum(pss(0, path)) - empty_one, sum(pss(4, path)) - empty_five
    return {"one_process_mb": round(one, 2), "with_4_workers_mb": round(five, 2), "ratio": round(five / one, 3)}


def pss(workers: int, path: str | None) -> list[float]:
    """Return the MB of a process forked for this, and of so many workers that it forks while it has the corpus open."""
    ready, go, answers, end = (os.pipe() for _ in range(4))
    if not (pid := os.fork()):
        corpus = Corpus(path) if path else None
        for _ in range(workers):
            if not os.fork():
                break
        if corpus:
            for array in (corpus.index.rows, corpus.index.blocks, corpus.index.shards):
                array.view(np.uint8)[::1024].sum()
        os.write(ready[1], b".")
        os.read(go[0], 1)
        os.write(answers[1], f"{megabytes()} ".encode())
        os.read(end[0], 1)
        os._exit(0)
    found = b""
    while found.count(b".") < workers + 1:
        found += os.read(ready[0], 64)
    os.write(go[1], b"." * (workers + 1))
    found = b""
    while found.count(b" ") < workers + 1:
        found += os.read(answers[0], 4096)
    os.write(end[1], b"." * (workers + 1))
    os.waitpid(pid, 0)
    return [float(value) for value in found.split()]


def megabytes() -> float:
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1]) / 1024  # type: ignore[index]


# An object store


def from_s3(folder: Path, samples: int, rounds: int) -> dict[str, Any]:
    """Return MB/s, and requests for pictures per 100 MB of them, of ours and of a pipe, by pictures of 1024x1024."""
    path = make(folder / f"pictures-1024-{samples}", 1024, samples, 6)
    pictures = int(Corpus(path).index.rows["length"].sum())
    counted = multiprocessing.Array("q", [0, 0])  # requests for tars, and their bytes
    port = multiprocessing.Value("i", 0)
    server = multiprocessing.get_context("fork").Process(
        target=serve, args=(Path(path), RATE, LATENCY, counted, port), daemon=True
    )
    server.start()
    while not port.value:
        time.sleep(0.05)
    endpoint = f"http://127.0.0.1:{port.value}"
    rates: dict[str, list[float]] = {"ours": [], "webdataset, pipe": []}
    requests: list[float] = []
    for _ in range(rounds):
        shutil.rmtree(folder / "cold", ignore_errors=True)
        corpus = Corpus(
            "s3://bucket/corpus", decode="bytes", cache=folder / "cold", options={**S3, "endpoint": endpoint}
        )
        counted[0] = counted[1] = 0
        began = time.perf_counter()
        for _ in Loader(corpus, BATCH, remainder="pad"):
            pass
        rates["ours"].append(pictures / 1e6 / (time.perf_counter() - began))
        requests.append(counted[0] / (pictures / 100e6))
        began = time.perf_counter()
        for _ in piped(path, endpoint):
            pass
        rates["webdataset, pipe"].append(pictures / 1e6 / (time.perf_counter() - began))
    server.terminate()
    return {
        "latency_seconds": LATENCY,
        "rate_mb_per_second": RATE / 1e6,
        "pictures_mb": round(pictures / 1e6, 1),
        "mb_per_second": {name: round(statistics.median(all_), 1) for name, all_ in rates.items()},
        "ours_over_webdataset_pipe": round(
            statistics.median(a / b for a, b in zip(rates["ours"], rates["webdataset, pipe"], strict=True)), 3
        ),
        "requests_per_100_mb": round(statistics.median(requests), 1),
    }


S3 = {"access_key_id": "bench", "secret_access_key": "bench", "region": "us-east-1"}


def piped(path: str, endpoint: str) -> Iterator[int]:
    import webdataset as wds

    tars = sorted(tar.name for tar in Path(path, layout.TRAIN).glob("*.tar"))
    urls = [f"pipe:curl -s {endpoint}/bucket/corpus/{layout.TRAIN}/{tar}" for tar in tars]
    samples = wds.WebDataset(urls, shardshuffle=len(urls)).shuffle(1000).to_tuple("jpg", "txt")
    for batch in samples.batched(BATCH, collation_fn=list):
        yield len(batch)


def serve(root: Path, rate: float, latency: float, counted: Any, port: Any) -> None:
    """Serve the corpus at *root* as ``s3://bucket/corpus``: reads and listings, each after *latency* seconds, all
    together at *rate* bytes a second."""
    free, lock = [0.0], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            time.sleep(latency)
            url = urlsplit(self.path)
            query = parse_qs(url.query)
            if "list-type" in query:
                self.answer(200, listing(root, query["prefix"][0].removeprefix("corpus/")), {})
                return
            file = root / unquote(url.path).removeprefix("/bucket/corpus/")
            if not file.is_file():
                self.answer(404, b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>", {})
                return
            size = file.stat().st_size
            start, stop, status = 0, size, 200
            if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                start, stop, status = int(wanted[1]), min(size, int(wanted[2] or size - 1) + 1), 206
            with open(file, "rb") as opened:
                opened.seek(start)
                data = opened.read(stop - start)
            if file.suffix == ".tar":
                with lock:
                    counted[0] += 1
                    counted[1] += len(data)
            self.answer(status, data, {"Content-Range": f"bytes {start}-{stop - 1}/{size}"} if status == 206 else {})

        def answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            more = {"ETag": '"1"', "Last-Modified": "Sat, 01 Jan 2000 00:00:00 GMT", "Content-Length": str(len(data))}
            for name, value in (headers | more).items():
                self.send_header(name, value)
            self.end_headers()
            view = memoryview(data if self.command != "HEAD" else b"")
            for at in range(0, len(view), 1 << 18):
                part = view[at : at + (1 << 18)]
                with lock:
                    free[0] = max(free[0], time.monotonic()) + len(part) / rate
                    pause = free[0] - time.monotonic()
                time.sleep(max(0.0, pause))
                self.wfile.write(part)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    port.value = server.server_port
    server.serve_forever()


def listing(root: Path, prefix: str) -> bytes:
    files = sorted(file for file in (root / prefix).rglob("*") if file.is_file()) if (root / prefix).is_dir() else []
    contents = "".join(
        f"<Contents><Key>corpus/{file.relative_to(root)}</Key><Size>{file.stat().st_size}</Size>"
        "<LastModified>2000-01-01T00:00:00.000Z</LastModified><ETag>1</ETag></Contents>"
        for file in files
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>".encode()


CHILDREN = {"first": seconds_to_first, "open": seconds_to_open, "memory": proportional}


if __name__ == "__main__":
    main()
