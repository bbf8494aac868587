"""What was done about the concepts of a run, in words, and no more than the run record knows: a concept that is listed
is not thereby erased, and one that no detector looked for was not seen to be absent."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CAPTIONS = {
    "keep": "Captions are the prompts as they were asked.",
    "drop": "Captions are the prompts without the words for the concepts.",
    "anchor": "Captions are the prompts without the words for the concepts; where the detector saw a concept's anchor, "
    "that stands in their place.",
}


def erased_by(concepts: Iterable[str], recipe: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the labels of the steps of a compiled *recipe* that were aimed at each of *concepts*, in their order."""
    steps = recipe.get("steps", [])
    return {name: [step["label"] for step in steps if name in step["concepts"]] for name in concepts}


def treatment(concepts: Sequence[str], recipe: Mapping[str, Any]) -> str:
    """Return what a compiled *recipe* did to the *concepts* of a list, as sentences."""
    if not concepts:
        return "No concept is listed: nothing was erased."
    by = erased_by(concepts, recipe)
    if not any(by.values()):
        return f"Nothing was erased, the recipe is empty; only listed: {', '.join(concepts)}."
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, labels in by.items():
        groups.setdefault(tuple(labels), []).append(name)
    listed = groups.pop((), [])
    erased = "; ".join(f"{', '.join(names)} (by {', then '.join(labels)})" for labels, names in groups.items())
    return f"Erased: {erased}." + (f" Only listed, not erased: {', '.join(listed)}." if listed else "")


def audit(config: Mapping[str, Any], judged: bool) -> str:
    """Return who looked at the pictures of a run with this resolved *config*; *judged* says whether any score is there.

    The policy is said too, because it decides what became of pictures in which a concept was seen.
    """
    detector, policy = config["audit"]["detector"], config["audit"]["policy"]
    if detector is None:
        return "No detector looked at these pictures: nothing was measured."
    if not config["erasure"]["concepts"]:
        return f"Detector {detector} was given no concept to look for: nothing was measured."
    if not judged:
        return f"Detector {detector} was to look at every picture, policy {policy}; none has been judged yet."
    return f"Detector {detector} looked at every picture, policy {policy}."
