"""Where everything lies in a corpus of format 1: names, and nothing else.

    run.yaml  recipe/*.safetensors  train/000000.tar  manifests/000000.parquet  commits/000000.json
    failures/000000-0001.json       attempts/000000-ATTEMPT/   (only while a shard is being committed)
    README.md  report.html  wids-train.json  train/000000.idx  train/sizes.json   (from finish)

Beside it, ``PATH.evidence``: ``evidence.json``,
``quarantine/000000.tar``, ``pairs/``, ``report.html`` and attempts of its own.
"""

import re

from pipeline.paths import locate

FORMAT = 1
RUN = "run.yaml"
RECIPE = "recipe"
TRAIN = "train"
MANIFESTS = "manifests"
COMMITS = "commits"
FAILURES = "failures"
ATTEMPTS = "attempts"
QUARANTINE = "quarantine"  # in the evidence store
PAIRS = "pairs"  # in the evidence store
EVIDENCE_NOTE = "evidence.json"  # there too: whose it is (see purge.py)
CARD = "README.md"
REPORT = "report.html"
WIDS = "wids-train.json"
SIZES = "train/sizes.json"


def recipe(name: str) -> str:
    return f"{RECIPE}/{name}"


def shard_name(shard: int) -> str:
    return f"{shard:06d}"


def tar(shard: int) -> str:
    return f"{TRAIN}/{shard:06d}.tar"


def index(shard: int) -> str:
    return f"{TRAIN}/{shard:06d}.idx"


def manifest(shard: int) -> str:
    return f"{MANIFESTS}/{shard:06d}.parquet"


def commit(shard: int) -> str:
    return f"{COMMITS}/{shard:06d}.json"


def failure(shard: int, number: int) -> str:
    return f"{FAILURES}/{shard:06d}-{number:04d}.json"


def attempt(shard: int, attempt_id: str) -> str:
    """Return the folder of one attempt; its name tells the shard even where nothing in it was finished."""
    return f"{ATTEMPTS}/{shard:06d}-{attempt_id}"


def quarantine_tar(shard: int) -> str:
    return f"{QUARANTINE}/{shard:06d}.tar"


def evidence_url(path: str) -> str:
    """Return the URL or folder of the evidence beside the corpus *path* (see ``paths``)."""
    return str(locate(path).evidence)


def tar_of(path: str) -> int | None:
    """Return the shard whose tar *path* is; None for any other file under ``train/``."""
    return _numbered(TRAIN, "tar", path)


def commit_of(path: str) -> int | None:
    """Return the shard whose commit record *path* is, or None for any other path."""
    return _numbered(COMMITS, "json", path)


def _numbered(folder: str, ending: str, path: str) -> int | None:
    match = re.fullmatch(rf"{folder}/(\d{{6,}})\.{ending}", path)
    return int(match[1]) if match else None


def attempt_of(path: str) -> tuple[int, str] | None:
    """Return (shard, attempt id) of a path under ``attempts/``, or None for any other path."""
    match = re.match(rf"{ATTEMPTS}/(\d{{6,}})-([^/]+)(?:/|$)", path)
    return (int(match[1]), match[2]) if match else None
