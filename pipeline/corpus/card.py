"""The dataset card, README.md of a corpus: what it is, how it was made, what is in it, how to load it."""

import json
from collections.abc import Sequence
from typing import Any

import yaml

from pipeline.corpus.account import CAPTIONS, QUALITY, RESIDUALS, audit, detector, erased_by, measure, treatment
from pipeline.corpus.commit import CommitRecord
from pipeline.corpus.quality import Spread
from pipeline.corpus.quality_page import copies_line
from pipeline.corpus.readers import TRIED, readers
from pipeline.corpus.residual import residual
from pipeline.corpus.run_record import RunRecord
from pipeline.corpus.summary import Summary
from pipeline.corpus.words import WordTable, shown
from pipeline.paths import locate
from pipeline.statistics import Share

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


def card(
    path: str,
    run: RunRecord,
    records: Sequence[CommitRecord],
    summary: Summary,
    words: WordTable | None = None,
    spread: Spread | None = None,
) -> str:
    """Return the card as Markdown with the YAML header that the Hugging Face hub reads."""
    name = locate(path).name
    kept = summary.statuses["ok"]
    concepts = run.config["erasure"]["concepts"]
    names = [concept["name"] for concept in concepts]
    by = erased_by(names, run.recipe)
    erased = ["concept-erasure"] if any(by.values()) else []
    header = {
        "pretty_name": name,
        "task_categories": ["text-to-image"],
        "tags": ["synthetic", "webdataset", *erased],
        "size_categories": [next((text for limit, text in _SIZES if kept < limit), "n>10M")],
        # Pinned, because a guess among tars, manifests and reports may fall on the manifests.
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train/*.tar"}]}],
        # Else they are guessed from the first tar, which may be empty.
        "dataset_info": {"features": _features(run.config["output"]["image_format"])},
    }
    model, generation = run.config["model"], run.config["generation"]
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False).rstrip(),
        "---",
        f"# {name}",
        "",
        f"{kept} synthetic pictures with captions, made by Lacuna. {treatment(names, run.recipe)}",
        "",
        f"- model: `{model['path']}`, revision `{run.model_revision}`, {model['dtype']}",
        f"- sampling: {generation['steps']} steps, guidance {generation['guidance']}, batches of {run.batch_size}",
        f"- identity: `{run.digest}`; {len(records)} of {run.shards} planned shards",
        f"- samples: {_counts(summary)}",
    ]
    if concepts:
        lines += [
            "",
            "## Concepts",
            "",
            "| concept | other words | erased by | anchor | to preserve |",
            "|---|---|---|---|---|",
        ]
    for concept in concepts:
        stays = [*concept["preserve"], *(f"{phrase} (not meant)" for phrase in concept.get("keep", []))]
        aliases, preserved = ", ".join(concept["aliases"]), ", ".join(stays)
        steps = ", then ".join(by[concept["name"]]) or "nothing: only listed"
        cells = (concept["name"], aliases or "-", steps, concept["anchor"] or "-", preserved or "-")
        lines.append(f"| {' | '.join(cells)} |")
    if words is not None:
        lines += _words(words, str((run.words or {})["file"]))
    if run.recipe.get("steps"):
        lines += ["", "Recipe, in the order of its steps:", ""]
    for step in run.recipe.get("steps", []):
        pinned = f", pinned as `{step['file']}` (sha256 `{step['sha256'][:16]}`)" if "file" in step else ""
        lines.append(f"- {step['label']} on {', '.join(step['concepts'])}{pinned}")
    lines += ["", CAPTIONS[run.config["audit"]["captions"]]] if concepts else []
    lines += ["", "## What the audit saw", "", audit(run, bool(summary.scores))]
    if run.detectors:
        lines += ["", *(f"- {detector(facts)}" for facts in run.detectors)]
    if summary.scores:
        lines += [
            "",
            RESIDUALS,
            "",
            "| concept | found in pictures drawn | of these removed | implied in all drawn | implied in kept |",
            "|---|---|---|---|---|",
        ]
    for concept in sorted(summary.scores):
        known = residual(run, summary, concept)
        shown = [f"unknown: {known.unknown}" if s is None else _share(s) for s in (known.in_drawn, known.in_kept)]
        lines.append(f"| {concept} | {_share(known.found)} | {known.removed:,} | {' | '.join(shown)} |")
    if spread is not None and run.quality:
        lines += _quality(run, spread)
    lines += [
        "",
        "## Loading",
        "",
        "`manifests/*.parquet` has a row for every planned sample, whatever became of it; `train/*.tar` what is kept.",
        "",
    ]
    if kept:
        lines += [f"Of a copy on disk, each reader by itself. {TRIED}:", ""]
        lines += ["```python", f"path = {_folder(path)}", "```", ""]
        for lines_of in readers(run, records):
            lines += [f"{lines_of.reader}:", "", f"```{lines_of.language}", lines_of.code, "```", ""]
    else:
        lines += ["No picture may be trained on.", ""]
    lines.append("")
    return "\n".join(lines)


def _quality(run: RunRecord, spread: Spread) -> list[str]:
    lines = ["", "## Quality", "", QUALITY, ""]
    lines += [f"- {measure(facts)}" for facts in run.quality]
    drawn = spread.histograms()
    if drawn:
        lines += ["", "| column | median | from | to | pictures |", "|---|---|---|---|---|"]
    for column in drawn:
        figures = (f"{value:.4g}" for value in (column.median, column.low, column.high))
        lines.append(f"| {column.column} | {' | '.join(figures)} | {column.values:,} |")
    copies = spread.copies()
    if copies is not None:
        lines += ["", copies_line(copies)]
    return lines


def _words(table: WordTable, file: str) -> list[str]:
    lines = [
        "",
        "## Words proved by drawing",
        "",
        f"What the gate acts on beside the list was proved by drawing {table.words:,} words with the unerased model. "
        f"{table.rules} The whole table is `{file}`.",
        "",
        "| concept | its own name shows it | words that mean it | words that imply it |",
        "|---|---|---|---|",
    ]
    for concept in table.concepts():
        cells = (concept.name.concept, str(concept.name), shown(concept.means), shown(concept.implies))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _features(image: str) -> list[dict[str, Any]]:
    """Return the columns that a row has in Hugging Face's ``datasets``, as its YAML writes them."""
    facts = {"height": "int64", "key": "string", "seed": "int64", "sha256": "string", "width": "int64"}
    return [
        {"name": image, "dtype": "image"},
        {"name": "txt", "dtype": "string"},
        {"name": "json", "struct": [{"name": name, "dtype": kind} for name, kind in facts.items()]},
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]


def _folder(path: str) -> str:
    """Return, as Python writes it, where a reader on this machine finds it, or what a copy of it would be called."""
    location = locate(path)
    return json.dumps(path if location.on_disk else location.name, ensure_ascii=False)


def _counts(summary: Summary) -> str:
    return ", ".join(f"{number} {status}" for status, number in sorted(summary.statuses.items()) if number) or "none"


def _share(share: Share) -> str:
    return f"{share.share:.2%} ({share.low:.2%} to {share.high:.2%})"
