"""The evidence beside a corpus: pictures that must not be trained on, kept to be looked at."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from pipeline.corpus import layout
from pipeline.corpus.opening import Output, open_store
from pipeline.corpus.stores import Store
from pipeline.errors import CorpusError
from pipeline.paths import locate

INDEX = f"{layout.PAIRS}/pairs.json"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One prompt and seed, drawn by the model as it is and by the erased one. Images are PNG bytes."""

    prompt: str
    key: str
    seed: int
    unerased: bytes
    erased: bytes
    unerased_scores: dict[str, float] = field(default_factory=dict)
    erased_scores: dict[str, float] = field(default_factory=dict)
    gates: dict[str, float] = field(default_factory=dict)


def write_pairs(evidence: Store, pairs: Sequence[Pair]) -> None:
    """Write pictures and scores; the index comes last, so that it never names a picture that is not there."""
    facts = []
    for pair in pairs:
        values = asdict(pair)
        for side in ("unerased", "erased"):
            values[side] = f"{layout.PAIRS}/{pair.key}-{side}.png"
            evidence.write(values[side], getattr(pair, side))
        facts.append(values)
    evidence.write(INDEX, json.dumps(facts, sort_keys=True, indent=1).encode())


def read_pairs(evidence: Store) -> list[Pair]:
    """Return the pairs drawn when the run was prepared; none where they were purged or none were drawn. Raises
    ``CorpusError`` where their index is damaged."""
    try:
        facts = json.loads(evidence.read(INDEX))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise CorpusError(
            f"{evidence.url}/{INDEX}: is damaged ({error}); delete it, and the report does without these pairs"
        ) from error
    for values in facts:
        values |= {side: evidence.read(values[side]) for side in ("unerased", "erased")}
    return [Pair(**values) for values in facts]


def write_page(text: str, output: Output, name: str, file: str | None) -> str:
    """Write an HTML page that may show unerased pictures: as *name* to the evidence of *output*, or to *file*.

    Returns where it is. Raises ``StoreError`` where it cannot be written, ``CorpusError`` where a corpus is there.
    """
    if file is not None:
        page = locate(file)
        open_store(page.parent, output.options).write(page.name, text.encode())
        return str(page)
    evidence = output.evidence
    if evidence.exists(layout.RUN):
        raise CorpusError(f"{evidence.url}: is a corpus, and no place for evidence; choose another output.path")
    evidence.write(name, text.encode())
    return f"{evidence.url}/{name}"
