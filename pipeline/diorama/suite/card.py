"""The card of the built-in model: what it is, how it was trained, how it scored. Turns scores into Markdown."""

import math
from typing import Any

from pipeline.evaluation.statistics import proportion

_HEAD = """# The diorama: a small Stable Diffusion of a procedural world

A real `StableDiffusionPipeline` (CLIP text encoder and tokenizer, `UNet2DConditionModel`, `AutoencoderKL`), 64x64
pixels, trained from scratch by `make diorama` on scenes that Lacuna draws itself, with exact ground truth. It is there
so that concept erasure can be tried, tested and measured on any machine. It is of no use for anything else.

The stickers it has learnt are glyphs of [Noto Color Emoji](https://github.com/googlefonts/noto-emoji), Copyright
2013-2017 Google Inc. and Arjen Nienhuis, under the SIL Open Font License 1.1 (`LICENSE-OFL.txt`). The font is not
distributed here and not needed to run the model.
"""


def card(scores: dict[str, Any]) -> str:
    """The whole card as Markdown; *scores* as ``evaluate_diorama`` gathers them. In the card of the shipped weights
    ``make tables`` renders the scores anew, from the results file."""
    parts = [_HEAD, "![contact sheet](contact.png)\n"]
    parts += [_training(scores["training"])] if scores["training"] else []
    return "\n".join([*parts, f"## Scores\n\n<!-- table: diorama -->\n{scores_text(scores)}<!-- end -->\n"])


def from_json(value: Any) -> Any:
    """Return what was written of scores as they were: proportions instead of their fields."""
    if not isinstance(value, dict):
        return value
    if {"hits", "trials"} <= value.keys():
        return proportion(value["hits"], value["trials"])
    return {key: from_json(part) for key, part in value.items()}


def scores_text(scores: dict[str, Any]) -> str:
    """The scores of model and detectors as Markdown."""
    settings = scores["settings"]
    speed = scores["pictures per second"]  # none where all pictures were there
    pace = "" if speed is None or math.isnan(speed) else f"{speed:.2f} pictures/s. "
    parts = [
        f"{settings['images']} pictures, {settings['steps']} steps, guidance {settings['guidance']}, weights "
        f"`{settings['weights']}`, seeds that no training saw, on {scores['machine']}. "
        f"{pace}Intervals are Wilson's, 95 %. Judged by detector B.\n\n"
        + _table(scores["all objects asked for are there"], "all objects asked for are there")
        + "\n"
        + _table(
            {
                name: scores[name]
                for name in (
                    "an object that was not asked for",
                    "style right",
                    "plain where no style was asked for",
                    "background right",
                )
            },
            "the rest of the prompt",
        )
    ]
    if "frechet" in scores:
        f = scores["frechet"]
        parts.append(
            f"Frechet distance in B's features, {f['pictures on each side']} pictures on each side: generated to "
            f"renders {f['generated to renders']:.2f}, renders to other renders {f['renders to renders']:.2f}.\n"
        )
    ab = scores["A and B"]
    parts.append(
        f"A and B see the same objects in {ab['same objects in the picture']} of the generated pictures; kappa per "
        f"object {ab['kappa per object']:.3f}.\n"
    )
    parts.append(_detectors(scores["renders"]))
    parts.append(_labelled(scores["labelled"]))
    return "\n".join(parts)


def _table(rows: dict[str, Any], title: str) -> str:
    lines = [f"| {title} | share (95 % interval; count) |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {value} |" for name, value in rows.items()]) + "\n"


def _training(facts: dict[str, Any], title: str = "## Training") -> str:
    """A row per stage; weights that training started from come behind, in a table of their own."""
    lines = [
        f"| {stage} | {', '.join(f'{k} {v}' for k, v in done.items()) if isinstance(done, dict) else done} |"
        for stage, done in facts.items()
        if stage != "before"
    ]
    table = "\n".join([f"{title}\n", "| stage | |", "|---|---|", *lines]) + "\n"
    return table + (
        "\n" + _training(facts["before"], "Started from weights trained thus:") if "before" in facts else ""
    )


def _detectors(renders: dict[str, Any] | None) -> str:
    if renders is None:
        return "### Detectors\n\nNot measured here: fresh renders need the font.\n"
    lines = [
        f"### Detectors\n\nOn {renders['pictures']} fresh renders, as many in each style.\n",
        "| | A | B |",
        "|---|---|---|",
        f"| macro F1 | {renders['A']['macro F1']:.4f} | {renders['B']['macro F1']:.4f} |",
    ]
    for style, f1 in renders["A"]["macro F1 by style"].items():
        lines.append(f"| macro F1, {style} | {f1:.4f} | {renders['B']['macro F1 by style'][style]:.4f} |")
    for name in ("objects found", "pictures with a false alarm", "style right", "background right"):
        lines.append(f"| {name} | {renders['A'][name]} | {renders['B'][name]} |")
    return "\n".join(lines) + "\n"


def _labelled(scores: dict[str, Any]) -> str:
    lines = [
        f"On {scores['pictures']} generated pictures that were labelled by looking at them "
        "(`pipeline/diorama/suite/labelled`):\n",
        "| | A | B |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {scores['A'][name]} | {scores['B'][name]} |" for name in scores["A"]]
    return "\n".join(lines) + "\n"
