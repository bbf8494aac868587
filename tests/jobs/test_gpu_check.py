"""`make gpu-check`, and what eyes cost: without a GPU a line says so; at a tiny size they run on a CPU."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from jobs.gpu.child import Child
from jobs.gpu.expected import LIKE, expected
from jobs.gpu.figures import AHEAD, ALL, STAGES, asked
from jobs.gpu.ledger import Ledger, key_here
from jobs.gpu.measure import share_of_roofline
from jobs.gpu.models import KINDS, random_model
from jobs.gpu.pinned import Pinned
from jobs.gpu.plain import Plain
from jobs.gpu.sides import Again, Ours
from jobs.gpu.stage import tried
from jobs.gpu.table import CHECKS, FAMILIES, ROWS, faults, markdown, table
from pipeline.errors import ConfigError
from pipeline.evaluation.results import write_result

SCRIPT = Path(__file__).resolve().parents[2] / "jobs" / "gpu_check.py"
SUFFICE = ("torch", "diffusers", "transformers", "omegaconf", "pyarrow", "tqdm")
CPU = torch.device("cpu")


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_a_line():
    done = run()
    assert done.returncode != 0
    assert done.stderr.startswith("gpu-check: torch sees no CUDA device here")
    assert len(done.stderr.splitlines()) == 1


def needed(names: tuple[str, ...]) -> set[str]:
    """The distributions *names* and all that they need, by normalised name."""
    found: set[str] = set()
    asked_for = list(names)
    while asked_for:
        name = re.sub(r"[-_.]+", "-", asked_for.pop()).lower()
        if name in found:
            continue
        found.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue  # of another platform
        asked_for += [r.name for r in map(Requirement, lines) if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.mark.slow  # starts the processes of one family, which is what is to be shown
def test_with_few_packages_it_measures_writes_down_and_goes_on(tmp_path: Path):
    """In processes that find nothing but the packages that it names, and what these need."""
    there = needed(SUFFICE)
    shut = sorted(
        module
        for module, names in packages_distributions().items()
        if not any(re.sub(r"[-_.]+", "-", name).lower() in there for name in names)
        and module not in sys.stdlib_module_names
    )
    assert {"ray", "webdataset", "obstore"} <= set(shut)
    assert not {"torch", "numpy", "PIL"} & set(shut)
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent(f"""\
        from importlib.machinery import PathFinder

        SHUT = set({shut!r}) - {{"jobs", "pipeline"}}
        FIND = PathFinder.find_spec

        def find(name, path=None, target=None):
            return None if name.partition(".")[0] in SHUT else FIND(name, path, target)

        PathFinder.find_spec = find
        """)
    )
    file = tmp_path / "found.json"
    tiny = ("sd21", "--device", "cpu", "--size", "tiny", "--eager", "--json", str(file))
    done = run(*tiny, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "the process of" not in done.stderr, "each ends well"
    (found,) = json.loads(file.read_text())["figures"].values()
    assert set(found["sd21"]) == set(asked(ALL, eager=True))
    assert found["sd21"]["again, eager"]["same"]
    assert re.search(r"^ours, eager +\S+ +\S+ of diffusers +\d+% +\d+%$", done.stdout, re.MULTILINE)
    assert re.search(r"^cease all, eager +\S+ +time x \S+$", done.stdout, re.MULTILINE)
    assert "ours, compiled        not measured" in done.stdout
    before = file.read_bytes()
    again = run(*tiny, PYTHONPATH=str(tmp_path))
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert file.read_bytes() == before
    late = run(
        "sd21", "--device", "cpu", "--size", "tiny", "--budget", "0", "--json", str(file), PYTHONPATH=str(tmp_path)
    )
    assert late.returncode == 1
    assert "sd21: not reached: ours, compiled, cease none, compiled" in late.stderr
    assert file.read_bytes() == before
    wrong = run("sdx")
    assert wrong.returncode == 2
    assert "sdx is no family; expected sd21, sdxl, flux or eyes" in wrong.stderr.splitlines()[-1]
    never = run("sd21", "--budget", "nan")
    assert never.returncode == 2
    assert "argument --budget: invalid seconds value: 'nan'" in never.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("family", KINDS)
def test_eager_each_family_is_drawn_and_unconcerned_samples_are_alike(family: str, tmp_path: Path):
    model = random_model(KINDS[family], True, CPU, torch.bfloat16)  # as most devices draw
    found = {}
    steps = [
        *Plain(KINDS[family], True, model, found, tmp_path).steps(),
        *Ours(KINDS[family], True, model, found, tmp_path).steps(),
    ]
    for figure, step in steps:
        if asked([figure], eager=True):
            found[figure] = tried(step)
    for figure, step in Again(KINDS[family], True, model, found, tmp_path).steps():
        if asked([figure], eager=True):
            found[figure] = tried(step)
    assert not list(faults(family, found, eager=True))
    assert found["unconcerned, eager"]["identical"]
    assert found["unconcerned, eager"]["concerned_changed"]
    assert found["ours, eager"]["repeats"]
    assert found["reach"]["tflop_per_image"] > 0
    assert found["ours, eager"]["roofline"] == pytest.approx(
        found["ours, eager"]["images_per_second"] * found["reach"]["tflop_per_image"] / found["reach"]["product_tflops"]
    )


def test_figures_are_kept_by_card_torch_and_code(tmp_path: Path):
    file = tmp_path / "found.json"
    ledger = Ledger.open(file, "cpu", "tiny")
    assert ledger.key == key_here("cpu", "tiny")
    assert f" | torch {torch.__version__} | tiny | " in ledger.key
    ledger.put("sdxl", "reach", {"product_tflops": 1.0})
    again = Ledger.open(file, "cpu", "tiny")
    assert again.has("sdxl", "reach")
    assert not again.has("flux", "reach")
    assert not Ledger.open(file, "cpu", "full").has("sdxl", "reach")
    other = json.loads(file.read_text())
    other["figures"]["another"] = other["figures"].pop(ledger.key)
    file.write_text(json.dumps(other))
    fresh = Ledger.open(file, "cpu", "tiny")
    assert not fresh.has("sdxl", "reach")
    fresh.put("sdxl", "reach", {"product_tflops": 2.0})
    assert set(json.loads(file.read_text())["figures"]) == {"another", ledger.key}
    file.write_text("{}")
    with pytest.raises(ConfigError, match="no measurement wrote it"):
        Ledger.open(file, "cpu", "tiny")
    write_result(file, what="Something else", config={}, figures={}, environment={})
    with pytest.raises(ConfigError, match=r"found\.json: holds another measurement \(Something else\)"):
        Ledger.open(file, "cpu", "tiny")


def test_one_call_at_a_time_writes_to_a_file(tmp_path: Path):
    first, second = (Ledger.open(tmp_path / "found.json", "cpu", "tiny") for _ in range(2))
    with first.alone(), pytest.raises(ConfigError, match=r"found\.json: another call writes to it"), second.alone():
        pass
    blocked = Ledger.open(tmp_path / "c", "cpu", "tiny")
    (tmp_path / "c.compiled").write_text("")
    with pytest.raises(ConfigError, match=r"c\.compiled: is no folder for compiled code"), blocked.alone():
        pass
    with second.alone(), Ledger.open(None, "cpu", "tiny").alone(), Ledger.open(tmp_path / "b", "cpu", "tiny").alone():
        second.put("sdxl", "reach", {"product_tflops": 1.0})


@pytest.mark.slow
def test_a_process_of_a_family_ends_with_the_one_that_asked_for_it(tmp_path: Path):
    """Else it would hold the GPU, and disturb what the next call measures."""
    tiny = ("--device", "cpu", "--size", "tiny", "--eager")
    arguments = ["sd21", "ours", *tiny, "--end", "inf", "--code", str(tmp_path)]
    with Child(arguments, tmp_path) as child, Child(arguments, tmp_path) as ahead, Child(arguments, tmp_path) as late:
        assert child.process.stdin is not None
        assert ahead.process.stdin is not None
        found = child.work({}, math.inf)
        assert next(found) == {"begun": "reach"}
        child.process.stdin.close()
        told = list(found)
        assert list(late.work({}, 0.0)) == [], "where the call is at its end, so is what it began"
        ahead.process.stdin.close()
        assert ahead.process.wait() == 0, "quietly, as it was not its turn yet"
    assert child.process.returncode == late.process.returncode == -signal.SIGKILL
    assert {"begun": "unconcerned, eager"} not in told, "it was not at its end"


@pytest.mark.slow
def test_so_does_that_of_the_eyes(tmp_path: Path):
    with Child(["eyes", "--device", "cpu", "--size", "tiny", "--rounds", "100000"], tmp_path) as eyes:
        assert list(eyes.work({}, time.time() + 1.0)) == []
    assert eyes.process.returncode == -signal.SIGKILL


def test_what_a_figure_will_take_is_told_by_those_that_were_taken():
    assert expected({}, "sd21", "reach") < expected({}, "sd21", "ours, compiled")
    taken = {"sd21": {"ours, compiled": {"took": 40.0}, "reach": {"took": 3.0}, "diffusers, eager": {"failed": "no"}}}
    assert expected(taken, "sd21", "cease all, compiled") == 80.0, "more graphs are compiled than for it"
    assert expected(taken, "sd21", "again, compiled anew") == 50.0
    assert expected(taken, "sdxl", "ours, compiled") == 40.0, "as of another family"
    assert expected(taken, "sdxl", "reach") == 3.0
    taken["flux"] = {"ours, compiled": {"took": 90.0}}
    assert expected(taken, "sdxl", "ours, compiled") == 90.0
    assert expected(taken, "flux", "diffusers, compiled") == 112.5, "of its own family, where that is known"
    for other in ("sdxl", "sd21"):  # what failed says nothing
        assert expected(taken, other, "diffusers, eager") == expected({}, other, "diffusers, eager")
    assert {*LIKE, *(like for like, _ in LIKE.values())} <= set(ALL)


def test_what_a_call_that_was_cut_has_compiled_is_told_and_that_of_other_code_left_alone(tmp_path: Path):
    first, second = Pinned(tmp_path), Pinned(tmp_path)
    assert first.find("plain") is None
    assert first.add("plain", b"code")
    assert first.find("plain") == second.find("plain") == b"code"
    assert (first.loaded, second.loaded) == (set(), {"plain"})
    compiled = {"images_per_second": 4.0, "compile_seconds": 5.2}
    for loaded, cell in ((0, "5"), (1, "5, some loaded")):
        printed = table("k", {"flux": everything(**{"ours, compiled": {**compiled, "loaded": loaded}})}, ["flux"])
        assert re.search(rf"^ours, compiled .* {cell}$", printed, re.MULTILINE)
    here, other = Ledger.open(None, "cpu", "tiny"), Ledger.open(None, "cpu", "full")
    assert here.digest == Ledger.open(None, "cpu", "tiny").digest != other.digest


def everything(**changed: dict) -> dict:
    """Figures of a family of which everything holds."""
    found: dict[str, dict] = {name: {"images_per_second": 2.0, "roofline": 0.5, "busy": 0.98} for name in ROWS}
    found |= {name: {key: True} for name, (key, _) in CHECKS.items()}
    return {**found, "reach": {"product_tflops": 800.0, "tflop_per_image": 200.0}, **changed}


def test_what_is_missing_failed_or_differs_is_told():
    assert set(AHEAD) < set(ALL)
    assert set(everything()) == set(ALL) == {name for names in STAGES.values() for name in names}
    assert not list(faults("sdxl", everything()))
    bad = everything(
        **{
            "ours, compiled": {"failed": "RuntimeError: no"},
            "unconcerned, compiled": {"identical": False, "concerned_changed": True},
            "unconcerned, eager": {"identical": True, "concerned_changed": False},
            "again, compiled": {"same": False},
            "again, compiled anew": {"same": False},  # is to be found out, not promised
            "ours, eager": {"images_per_second": 1.0, "repeats": False},
        }
    )
    del bad["diffusers, compiled"]
    assert sorted(faults("sdxl", bad)) == [
        "sdxl: a second process, with what the first has compiled: other bytes",
        "sdxl: not reached: diffusers, compiled",
        "sdxl: ours, compiled: RuntimeError: no",
        "sdxl: ours, eager: two batches that are the same gave other bytes",
        "sdxl: samples that name no concept, compiled: other bytes",
    ]
    printed = table("card | torch 2 | full | abc", {"sdxl": bad}, ["sdxl", "flux"])
    assert "diffusers, compiled   not measured" in printed
    assert "ours, compiled        failed" in printed
    assert "a second process that compiles anew: OTHER BYTES" in printed
    assert f"\n{FAMILIES['flux']}\n" in printed
    assert "samples that name no concept, eager: the same bytes; not all that name it were changed" in printed


def test_ratios_are_to_diffusers_and_to_no_erasure_in_the_same_mode():
    changed = {"images_per_second": 4.0}
    found = everything(**{"ours, compiled": changed, "cease all, compiled": {"images_per_second": 3.2}})
    rows = dict(re.findall(r"^(\w[\w ]+, \w+) +(.*?)$", table("k", {"sdxl": found}, ["sdxl"]), re.MULTILINE))
    assert rows["ours, compiled"].startswith("4         2.00 of diffusers")
    assert rows["ours, eager"].startswith("2         1.00 of diffusers")
    assert rows["cease all, compiled"].startswith("3.2       time x 1.250")
    assert share_of_roofline(2.0, found) == {"roofline": 0.5}
    assert share_of_roofline(2.0, {}) == share_of_roofline(2.0, {"reach": {"failed": "no"}}) == {}


def test_a_page_says_since_when_nothing_was_run():
    found = {"config": {"newest": "H100 | torch 2.11 | full | abcdef0123"}, "figures": {}}
    found["figures"]["H100 | torch 2.11 | full | abcdef0123"] = {"flux": {"ours, eager": {"images_per_second": 1.5}}}
    text = markdown(found)
    assert text.startswith("Not run on a GPU since abcdef0: H100, torch 2.11. `make gpu-check` runs it.\n")
    assert "| ours, eager | 1.5 |  |  |  |  |" in text
    assert "- not measured: diffusers, eager; diffusers, compiled; ours, compiled;" in text


@pytest.mark.slow
def test_what_eyes_cost_is_told_beside_a_picture(tmp_path: Path):
    results = tmp_path / "eyes.json"
    tiny = ("--device", "cpu", "--size", "tiny", "--batch", "2", "--rounds", "1", "--steps", "2")
    done = run("eyes", *tiny, "--results", str(results))
    assert done.returncode == 0, done.stderr
    figures = json.loads(results.read_text())["figures"]
    drawn = figures.pop("sdxl_seconds_per_picture")
    assert drawn > 0
    assert set(figures) == {"clip", "open_vocabulary", "quality"}
    for name, found in figures.items():
        share = found["ms_per_picture"] / 1000 / drawn
        assert found["share_of_a_picture"] == pytest.approx(share)
        assert re.search(rf"^{name} +{found['ms_per_picture']:.2f} +{share:.2%}$", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_eyes_are_a_part_of_the_whole(tmp_path: Path):
    file = tmp_path / "found.json"
    asked_for = ("eyes", "--device", "cpu", "--size", "tiny", "--json", str(file))
    done = run(*asked_for)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(file.read_text())["figures"].values()
    share = found["eyes"]["detectors"]["clip"]["share_of_a_picture"]
    assert f" ms, {share:.2%} of a picture of SDXL" in done.stdout
    before = file.read_bytes()
    assert run(*asked_for).stdout == done.stdout
    assert file.read_bytes() == before


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_eyes_say_so_in_a_line():
    done = run("eyes")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("gpu-check: torch sees no CUDA device here")
