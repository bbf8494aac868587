"""What a run takes from the sweeps that are there: proved words become part of its concepts, before it is named.

A run never draws a sweep. It asks the cache once, when it begins; what it found is in its identity, and a resume takes
it from there, whatever the cache holds by then.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.concepts.mentions import Naming
from pipeline.concepts.words import forms
from pipeline.config.concepts import concepts_of
from pipeline.config.schema import ConceptConfig, Config, ProvedWords
from pipeline.corpus import Store, open_store, read_run_record
from pipeline.corpus.words import WordRow, WordTable
from pipeline.errors import ConfigError
from pipeline.evaluation.words.cache import WordCache
from pipeline.evaluation.words.questions import without_article
from pipeline.evaluation.words.verdict import ROUNDS, RULES, Table, Verdict
from pipeline.paths import locate


def with_proved_words(config: Config, store: Store) -> tuple[Config, str]:
    """Return *config* with what its words' pictures showed, where any were drawn, and a line that says what was found.

    *config* is settled otherwise; a corpus that *store* holds already has the words with which it was begun. Raises
    ``ConfigError`` where ``words.require`` asks for a sweep and there is none.
    """
    if not config.erasure.recipe or not config.audit.detectors or read_run_record(store) is not None:
        return config, ""
    cache = drawn_words(config)
    if cache is None:
        return _unproved(config)
    names = [concept.name for concept in config.erasure.concepts]
    tally = cache.tally()
    judged = cache.judged_names
    if not set(judged) <= set(tally.words):
        return _unproved(config)
    table = tally.table(tally.words, ROUNDS)
    concepts = extended(config, tally.words, table)
    means, implies = (sum(len(getattr(concept, kind)) for concept in concepts) for kind in ("proven", "implied"))
    unproved = [n for n, provable in zip(names, table.provable.tolist(), strict=True) if n in judged and not provable]
    line = (
        f"words     {len(tally.words):,} drawn; of those not listed {means:,} mean a concept and {implies:,} imply one"
    )
    if unproved:
        line += f"; not provable: {', '.join(unproved)}"
    if unjudged := [name for name in names if name not in judged]:
        line += f"; no detector looks for {', '.join(unjudged)}"
    proved = _proved(config, concepts, tally.words, table, judged)
    return replace(config, erasure=replace(config.erasure, concepts=concepts), proved=proved), line


def _proved(
    config: Config, concepts: Sequence[ConceptConfig], words: Sequence[str], table: Table, judged: Collection[str]
) -> ProvedWords:
    """Return what a corpus is to keep of *table*, whose rows are *words*, and which words it brought to *concepts*: of
    those that are *judged* alone, as that nobody saw one where nobody looked is no evidence."""

    def added(part: str) -> dict[str, list[str]]:
        pairs = zip(config.erasure.concepts, concepts, strict=True)
        return {after.name: getattr(after, part)[len(getattr(before, part)) :] for before, after in pairs}

    kept = as_table(words, concepts, table)
    kept = replace(kept, rows=[row for row in kept.rows if row.concept in judged])
    return ProvedWords(table=kept.dumps(), proven=added("proven"), implied=added("implied"))


def as_table(words: Sequence[str], concepts: Sequence[ConceptConfig], table: Table) -> WordTable:
    """Return *table*, whose rows are *words* and whose columns *concepts*, as a corpus keeps it."""
    rows = [
        WordRow(word=word, concept=concept.name, **{**vars(judged), "verdict": judged.verdict.value})
        for concept, column in zip(concepts, zip(*table.judge(), strict=True), strict=True)
        for word, judged in zip(words, column, strict=True)
    ]
    return WordTable(rows, RULES)


def drawn_words(config: Config) -> WordCache | None:
    """Return the cache of words of *config*, which is settled; None where nothing was drawn, or nothing looks."""
    if not config.audit.detectors or _is_empty(config):
        return None
    cache = WordCache(config)
    return None if cache.is_empty() else cache


def _is_empty(config: Config) -> bool:
    """Was nothing ever drawn into the cache? So nothing is asked of the model's files, which may be large."""
    place = locate(config.words.cache)
    if place.on_disk:
        return not Path(place.path).is_dir()
    return not any(open_store(place, config.output.storage_options).list(""))


def _unproved(config: Config) -> tuple[Config, str]:
    if config.words.require:
        raise ConfigError(
            f"words.require: no words were drawn for this model, detector and list in {config.words.cache}; "
            "`lacuna words CONFIG --prove` draws them"
        )
    return config, ""


def extended(config: Config, words: Sequence[str], table: Table) -> list[ConceptConfig]:
    """Return the concepts with each proved word at one of them, the one that its pictures show most surely.

    Left alone is what the list has an answer for: its own words, whoever proved them, what it preserves, keeps, puts in
    place or ignores.
    """
    concepts = [
        replace(concept, proven=[*concept.proven], implied=[*concept.implied]) for concept in config.erasure.concepts
    ]
    listed = concepts_of(config.erasure)
    told = [word for concept in listed for word in (*concept.words, *concept.unharmed, concept.anchor) if word]
    naming = Naming.of_words(told)
    by_hand = [word for concept in listed for word in (*concept.proven, *concept.implied)]
    taken = {form for word in (*told, *by_hand) for form in forms(word)}
    ignored = [{form for word in concept.ignore for form in forms(word)} for concept in listed]
    for phrase, row in zip(words, table.judge(), strict=True):
        word = without_article(phrase)
        own = forms(word)
        if naming.names(word) or own & taken:  # of "party" and "parties", "a party" and "party" the first
            continue
        shown = [(judged, i) for i, judged in enumerate(row) if not own & ignored[i]]
        meant = [(judged.low, -i) for judged, i in shown if judged.verdict is Verdict.means]
        if meant:
            concepts[-max(meant)[1]].proven.append(word)
            taken |= own
            continue
        for judged, i in shown:
            if judged.verdict is Verdict.implies:
                concepts[i].implied.append(word)
                taken |= own
    return concepts
