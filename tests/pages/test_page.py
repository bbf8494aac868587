"""Pages escape whatever is put into them, are the same bytes for the same values, and need nothing from elsewhere."""

import re
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from jinja2 import UndefinedError

from pipeline.audit.calibration import Calibrated, Calibration, measure
from pipeline.concepts.dictionary import Sense
from pipeline.concepts.term import Term
from pipeline.config.schema import ImageFormat
from pipeline.corpus.encode import encode_image
from pipeline.corpus.evidence import Pair
from pipeline.corpus.report import Picture, evidence_page, report_page
from pipeline.corpus.summary import BINS, Summary
from pipeline.corpus.words import WordRow, WordTable
from pipeline.evaluation.erasure.findings import Findings
from pipeline.evaluation.erasure.page import evaluation_page
from pipeline.pages.page import picture, render
from pipeline.workshop.calibrate import Report
from pipeline.workshop.labelled import Labelled
from pipeline.workshop.words_page import ConceptShown, Shown
from tests.corpus.conftest import run_record

COUNTS = {"hits": 3, "pictures": 4, "low": 0.2, "high": 1.0, "p": 0.01}
HOSTILE = """<script>alert(1)</script>"' onload='x' {{ 7 * 7 }} &amp;"""
IMAGE = encode_image(np.zeros((8, 8, 3), np.uint8), ImageFormat.png, 0)


def report() -> str:
    run = run_record(1)
    run.config["model"]["path"] = run.config["output"]["path"] = HOSTILE
    run.config["erasure"]["concepts"][0]["name"] = HOSTILE
    run.recipe["steps"] = [{"label": HOSTILE, "concepts": [HOSTILE], "options": {HOSTILE: HOSTILE}, "method": "uce"}]
    summary = Summary(scores={HOSTILE: [0, 3, *[0] * (BINS - 2)]})
    summary.statuses["ok"] = 3
    run = replace(run, words={"file": HOSTILE})
    rows = [WordRow(word=w, concept=HOSTILE, verdict="means", **COUNTS) for w in (HOSTILE, f"{HOSTILE}s")]
    table = WordTable(rows, HOSTILE)
    return report_page(run, [], summary, [Picture(image=IMAGE, title=HOSTILE, note=HOSTILE)], table)


def words() -> str:
    sense = Sense(0, HOSTILE, (HOSTILE,), HOSTILE)
    shown = Shown(key=HOSTILE, word=HOSTILE, became=HOSTILE, choice="means", sense=sense, pictures=[IMAGE])
    concept = ConceptShown(name=HOSTILE, said=HOSTILE, pictures=[IMAGE], acted_on=[shown], others=[shown])
    return render(
        "words.html", title=HOSTILE, live=False, concepts=[concept], rules=HOSTILE, drawn=2, model=HOSTILE,
        vocabulary=HOSTILE,
    )  # fmt: skip


def evidence() -> str:
    scores = {HOSTILE: 0.5}
    pair = Pair(
        prompt=HOSTILE, key="0", seed=1, unerased=IMAGE, erased=IMAGE,
        unerased_scores=scores, erased_scores=scores, gates=scores,
    )  # fmt: skip
    return evidence_page([pair], [Picture(image=IMAGE, title=HOSTILE, note=HOSTILE)], HOSTILE)


def evaluation() -> str:
    names = ("model.path", "model.revision", "model.dtype", "generation.steps", "generation.guidance")
    names += ("generation.batch_size", "seed", "judge", "device", "torch")
    found = Findings(
        settings=dict.fromkeys(names, HOSTILE), cell=2, tasks=[], asked={}, pictures={}, times={},
        refused={(HOSTILE, HOSTILE): HOSTILE}, unedited=[], notes=[HOSTILE],
    )  # fmt: skip
    return evaluation_page(found)


def explanation() -> str:
    shown = {"image": IMAGE, "title": HOSTILE, "note": HOSTILE}
    return render(
        "explain.html", title=HOSTILE, prompt=HOSTILE, treatment=HOSTILE, model=HOSTILE, seed=0, sampling_steps=1,
        pictures=[shown], steps=[(HOSTILE, [HOSTILE])], masks=[shown],
        gates=[{"name": HOSTILE, "score": 1.5, "told": HOSTILE, "opens": 0.5, "state": HOSTILE}],
    )  # fmt: skip


def evaluated_task() -> str:
    """What ``evaluation_page`` gives of a task, whose figures take minutes to draw."""
    table = {"kind": "scores", "head": [HOSTILE], "rows": [[HOSTILE], [f"0.5 ({HOSTILE})"]]}
    sheet = {"cell": HOSTILE, "title": HOSTILE, "open": True, "recipes": [HOSTILE], "rows": [(HOSTILE, [IMAGE])]}
    task = {"name": HOSTILE, "erased": [HOSTILE], "alarms": HOSTILE, "scores": table, "differences": table}
    return render(
        "evaluation.html", title=HOSTILE, preamble=HOSTILE, warnings=[], tasks=[task | {"sheets": [sheet]}],
        together={"scores": table, "differences": table},
    )  # fmt: skip


def calibration() -> str:
    measured = measure(Term(HOSTILE), np.float32([0.9]), np.float32([0.1]), 0.1)
    unseen = measure(Term(HOSTILE), [], np.float32([0.1]), 0.1)
    concepts = {HOSTILE: measured, f"{HOSTILE} 2": unseen}
    one = Calibrated(detector=HOSTILE, fingerprint={}, about={HOSTILE: HOSTILE}, concepts=concepts)
    none = Calibrated(detector=HOSTILE, fingerprint={}, about={}, concepts={})
    found = Calibration(false_alarms=0.1, pictures=2, detectors=(one, none))
    labelled = Labelled(shows={}, read=lambda _: np.zeros((1, 1, 3), np.uint8))
    return Report(calibration=found, labelled=labelled, unjudged=(HOSTILE,), unlabelled=(HOSTILE,)).page()


PAGES = {
    page.__name__: page for page in (report, evidence, words, evaluation, evaluated_task, explanation, calibration)
}


@pytest.mark.parametrize("name", PAGES)
def test_hostile_text_is_shown_and_does_nothing(name: str) -> None:
    page = PAGES[name]()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39; onload=&#39;x&#39; {{ 7 * 7 }} &amp;amp;" in page
    assert not re.findall(r"<script|onload='", page)
    assert all(tag.startswith("data:image/png;base64,") for tag in re.findall(r'(?:src|href)="?([^"> ]+)', page))


@pytest.mark.parametrize("name", PAGES)
def test_the_same_values_give_the_same_bytes(name: str) -> None:
    assert PAGES[name]() == PAGES[name]()


def test_every_template_belongs_to_a_page_that_is_tried_here() -> None:
    templates = {file.name for file in resources.files("pipeline.pages").joinpath("templates").iterdir()}
    shared = {"base.html", "parts.html", "style.css", "words.js"}
    assert templates - shared == {
        "words.html",
        "report.html",
        "evidence.html",
        "evaluation.html",
        "explain.html",
        "calibration.html",
    }


def test_a_value_that_a_page_needs_must_be_given() -> None:
    with pytest.raises(UndefinedError, match="treatment"):
        render("evidence.html", title="x", pairs=[], quarantined=[])


def test_a_bar_is_as_high_as_its_value_and_the_highest_fills_the_chart() -> None:
    run, summary = run_record(1), Summary(scores={"cat": [0, 4, 1, *[0] * (BINS - 3)]})
    page = report_page(run, [], summary, [])
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', page)]
    assert heights == [0, 100, 25, *[0] * (BINS - 3)]
    assert f'viewBox="0 0 {BINS} 100"' in page
    assert "<title>0.05 to 0.10: 4</title>" in page


def test_a_chart_of_nothing_but_zeros_is_flat() -> None:
    page = report_page(run_record(1), [], Summary(scores={"cat": [0] * BINS}), [])
    assert set(re.findall(r'<rect [^>]*height="([\d.]+)"', page)) == {"0.0"}


def test_a_large_picture_is_shown_as_a_thumbnail() -> None:
    large = encode_image(np.zeros((400, 800, 3), np.uint8), ImageFormat.png, 0)
    assert "data:image/jpeg" in picture(large)
    assert "data:image/png" in picture(IMAGE)
