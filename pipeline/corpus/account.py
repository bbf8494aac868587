"""What was done about the concepts of a run, in words, and no more than the run record knows: a concept that is listed
is not thereby erased, and one that no detector looked for was not seen to be absent."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.audit.eye import labels as names_of
from pipeline.corpus.run_record import RunRecord

CAPTIONS = {
    "keep": "Captions are the prompts as they were asked.",
    "drop": "Captions are the prompts without the words for the concepts.",
    "anchor": "Captions are the prompts without the words for the concepts; where the detector saw a concept's anchor, "
    "that stands in their place.",
}

RESIDUALS = (
    "Found and removed is what the detectors saw, with Wilson 95 % intervals: they miss some, and see what is not "
    "there. What that implies for the pictures drawn and those kept is reckoned from the rates at which a detector "
    "erred when it was calibrated (Rogan & Gladen 1978; 95 % intervals), and unknown where it was not."
)

QUALITY = (
    "Measured of every picture, in columns of the manifests. None of it decided what is kept; Corpus(path, where=...) "
    "reads what a predicate over these columns leaves."
)


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


def audit(run: RunRecord, judged: bool) -> str:
    """Return who looked at the pictures of *run* and what for, as sentences; *judged* says whether any score is there.

    The policy is said too, because it decides what became of pictures in which a concept was seen.
    """
    settings = run.config["audit"]
    policy, names = settings["policy"], _asked(settings)
    if not names:
        return "No detector looked at these pictures: what they show was not judged."
    if not run.detectors:
        return f"{_detectors(names, 'was', 'were')} given no concept to look for: what they show was not judged."
    judges = [detector["name"] for detector in run.detectors if detector["role"] == "judge"]
    witnesses = [detector["name"] for detector in run.detectors if detector["role"] != "judge"]
    if not judges:
        said = "No detector decided about these pictures."
    elif not judged:
        subject = _detectors(judges, "was", "were")
        said = f"{subject} to look at every picture, policy {policy}; none has been judged yet."
    else:
        said = f"{_detectors(judges)} looked at every picture, policy {policy}."
    if _shared(run):
        said += f" Where several look for one concept, {_TOGETHER[settings['combine']]}."
    if witnesses:
        said += f" {_detectors(witnesses)} looked too, and decided nothing."
    if free := unjudged(run):
        said += f" Nobody looked for {', '.join(free)}: whether these pictures show it is not known."
    if others := [detector["name"] for detector in run.detectors if "fingerprint" in detector]:
        said += (
            f" {_detectors(others)} may judge the same picture otherwise another time: a verdict that is committed "
            "stands, but that a shard which is drawn again, or after a stop, has the same bytes is not promised."
        )
    return said


def unjudged(run: RunRecord) -> list[str]:
    """Return the concepts that no judge looked for in a *run* that has any."""
    judged = {name for detector in run.detectors if detector["role"] == "judge" for name in detector["thresholds"]}
    return [c["name"] for c in run.config["erasure"]["concepts"] if c["name"] not in judged and run.detectors]


def detector(facts: Mapping[str, Any]) -> str:
    """Return what a detector of a run's record is, in a line: its name, what it tells of itself, what it looked for."""
    role = "" if facts["role"] == "judge" else f" ({facts['role']})"
    parts = [f"{key} {value}" for key, value in facts["about"].items()]
    parts += [f"weights and code {facts['sha256'][:23]}"] if facts["sha256"] else []
    limits = [name if limit is None else f"{name} from {limit:.3g}" for name, limit in facts["thresholds"].items()]
    known = "calibrated" if facts.get("calibration") else "uncalibrated"
    return f"{facts['name']}{role}: {'; '.join([*parts, 'sees ' + ', '.join(limits), known])}"


def measure(facts: Mapping[str, Any]) -> str:
    """Return what a measure of a run's record is, in a line: its name, its columns, what it tells of itself."""
    parts = [f"{key} {value}" for key, value in facts["about"].items() if value]
    parts += [f"weights and code {facts['sha256'][:23]}"] if facts["sha256"] else []
    columns = [name for name in facts["columns"] if name != facts["name"]]
    named = f"{facts['name']} ({', '.join(columns)})" if columns else facts["name"]
    return f"{named}: {'; '.join(parts)}" if parts else named


_TOGETHER = {
    "any": "it counts as seen if one of them sees it",
    "all": "it counts as seen if all of them see it",
    "mean": "the mean of their scores decides",
}


def _asked(settings: Mapping[str, Any]) -> list[str]:
    """Return the detectors that an audit's settings name; runs of before there could be several have at most one."""
    if "detectors" in settings:
        return names_of(detector["detector"] for detector in settings["detectors"])
    return [] if settings["detector"] is None else [settings["detector"]]


def _detectors(names: Sequence[str], one: str = "", many: str = "") -> str:
    """Return the detectors *names* as the subject of a sentence, with its verb."""
    several = len(names) > 1
    said = f"Detectors {', '.join(names[:-1])} and {names[-1]}" if several else f"Detector {names[0]}"
    return " ".join(filter(None, [said, many if several else one]))


def _shared(run: RunRecord) -> bool:
    """Do several judges look for one concept?"""
    seen = [name for detector in run.detectors if detector["role"] == "judge" for name in detector["thresholds"]]
    return len(seen) > len(set(seen))
