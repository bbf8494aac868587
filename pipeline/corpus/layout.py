"""Where everything lies in a corpus: names, and nothing else.

    run.yaml  recipe/*.safetensors  words/*.parquet  train/000000.tar  manifests/000000.parquet  commits/000000.json
    compiled/*.json  compiled/*.bin  failures/000000-0001.json
    attempts/000000-ATTEMPT/   (only while a shard is being committed)
    README.md  report.html  index/wids.json  index/000000.idx  index/rows.json  index/rows/   (from finish)

``run.yaml`` says of which format a corpus is, and it is finished, resumed and repaired as that:

1. A shard of which nothing may be trained on has no tar, so the numbers of the tars have gaps. What finish derives for
   loaders is ``wids-train.json``, ``train/000000.idx`` and ``train/sizes.json``. Manifests tell no schema.
2. Every shard has a tar, if need be one without members (and without an index), and nothing but tars is in ``train/``.

Beside it, ``PATH.evidence``: ``evidence.json``,
``quarantine/000000.tar``, ``pairs/``, ``report.html`` and attempts of its own.
"""

import re

from pipeline.errors import CorpusError
from pipeline.paths import locate

FORMAT = 2  # of a corpus that is begun
FORMATS = (1, 2)  # that are read
RUN = "run.yaml"
RECIPE = "recipe"
WORDS = "words"  # what words draw, where that was proved before the run (see words.py)
COMPILED = "compiled"  # code of the model, where it was compiled (see compiled.py)
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
INDEX = "index"
ROWS = "index/rows.json"  # on the files of ``index/rows/``: what Lacuna's loader reads, from format 2 on
SIZES = "train/sizes.json"  # in format 1


def check_format(corpus_format: object, path: str) -> None:
    """Raise ``CorpusError`` where the file *path* says that it is of a format that nobody here can read."""
    if corpus_format not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        raise CorpusError(
            f"{path}: has corpus format {corpus_format!r}; this version of Lacuna reads the formats {known}"
        )


def recipe(name: str) -> str:
    return f"{RECIPE}/{name}"


def words(name: str) -> str:
    return f"{WORDS}/{name}.parquet"


def compiled(name: str) -> str:
    return f"{COMPILED}/{name}"


def shard_name(shard: int) -> str:
    return f"{shard:06d}"


def tar(shard: int) -> str:
    return f"{TRAIN}/{shard:06d}.tar"


def wids(corpus_format: int) -> str:
    """Return the index that wids reads."""
    return "wids-train.json" if corpus_format == 1 else f"{INDEX}/wids.json"


def rows(name: str) -> str:
    """Return a file that Lacuna's own loader reads (see ``rows.py``)."""
    return f"{INDEX}/rows/{name}"


def dali(shard: int, corpus_format: int) -> str:
    """Return the index of a tar that DALI reads."""
    return f"{TRAIN if corpus_format == 1 else INDEX}/{shard:06d}.idx"


def derived(corpus_format: int) -> tuple[str, ...]:
    """Return what ``finish`` derives for all shards together."""
    return (CARD, REPORT, wids(corpus_format), *((SIZES,) if corpus_format == 1 else ()))


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
