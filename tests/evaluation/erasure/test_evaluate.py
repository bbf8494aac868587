"""The evaluation proves itself: on the diorama, with cells of two pictures and few steps."""

import json

import pytest

from jobs.ablate_cease import CONCEPTS as ABLATED
from pipeline.cli import main
from pipeline.errors import ConfigError
from pipeline.evaluation.erasure.config import load_evaluation
from pipeline.evaluation.erasure.evaluate import Evaluation, evaluate_erasure
from pipeline.evaluation.erasure.store import Folder
from pipeline.evaluation.results import read_result

pytestmark = pytest.mark.slow

CONFIG = """
model: {path: diorama, dtype: float32}
tasks:
  one object:
    concepts: [{name: cat, aliases: [kitten, tabby], anchor: dog, preserve: [tiger, dog]}]
recipes:
  nothing: []
  uce: [{method: uce}]
generation: {steps: 4, batch_size: 7}
cell: 2
timing: {repeats: 1, batch_size: 1}
"""
LEAKS = ("plain", "alias", "synonym")


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def nothing_file(tmp_path_factory):
    """The same with the one recipe that erases nothing, and no edit to solve and check."""
    path = tmp_path_factory.mktemp("config") / "nothing.yaml"
    path.write_text(CONFIG.replace("  uce: [{method: uce}]\n", ""))
    return path


@pytest.fixture(scope="module")
def evaluated(config_file, tmp_path_factory):
    """The folder of a whole evaluation, and what it printed."""
    out = tmp_path_factory.mktemp("out")
    return out, evaluate_erasure(load_evaluation(config_file), out, out / "results.json")


def kill_before(patch, comes) -> None:
    """Interrupt an evaluation when it is about to write the batch of which *comes(task, recipe, batch)* is true."""
    write = Folder.write

    def killed(self, task, recipe, batch, *drawn):
        if comes(task, recipe, batch):
            raise KeyboardInterrupt
        write(self, task, recipe, batch, *drawn)

    patch.setattr(Folder, "write", killed)


def load(out) -> dict:
    return json.loads((out / "scores.json").read_text())


def scores(out, recipe: str) -> dict:
    return load(out)["tasks"]["one object"]["recipes"][recipe]


def test_the_unerased_model_shows_the_concept_and_an_erased_one_does_not(evaluated):
    out, _ = evaluated
    hits = {recipe: sum(scores(out, recipe)["leak"][cell]["hits"] for cell in LEAKS) for recipe in ("none", "uce")}
    assert hits["none"] >= 5  # of six
    assert hits["uce"] <= 1


def test_the_results_file_has_the_same_counts_in_brief(evaluated):
    out, _ = evaluated
    result = read_result(out / "results.json")
    assert result["config"]["settings"]["generation.steps"] == load(out)["settings"]["generation.steps"]
    assert {"tasks.one object", "recipes.uce"} <= set(result["config"]["parts"])
    figures = result["figures"]
    for recipe in ("none", "uce"):
        brief, full = figures["tasks"]["one object"][recipe], scores(out, recipe)
        leak, kept = full["leak"], full["kept"]
        named = [leak[cell] for cell in ("plain", "alias") if cell in leak]
        assert brief["named"] == [sum(one["hits"] for one in named), sum(one["trials"] for one in named)]
        keys = ("base", "trials") if recipe == "none" else ("hits", "base")
        assert brief["unrelated"] == [kept["unrelated"][key] for key in keys]
        beside = [kept[cell] for cell in ("beside unrelated", "beside neighbour") if cell in kept]
        assert brief["beside"] == [sum(one[key] for one in beside) for key in keys]
        assert figures["all"][recipe]["scene"] == [leak["scene"]["hits"], leak["scene"]["trials"]]  # there is one task
    assert "H_o" not in figures["all"]["none"]
    assert figures["all"]["uce"]["H_o"]["value"] == pytest.approx(scores(out, "uce")["H_o"]["value"])
    assert figures["all"]["uce"]["time"] == load(out)["time"]["uce"]


def test_no_method_is_bit_identical(evaluated):
    out, _ = evaluated
    same, before = scores(out, "nothing"), scores(out, "none")
    assert same["outside"]["value"] == "Infinity"
    assert same["untouched"]["rate"] == 1
    assert all(same["leak"][cell] == before["leak"][cell] for cell in LEAKS)
    assert all(kept["rate"] == 1 for kept in same["kept"].values() if kept["base"])
    difference = same["H_o differences"]["none"]
    assert difference["low"] <= difference["value"] == 0 <= difference["high"]
    assert scores(out, "uce")["untouched"]["rate"] < 1


def test_the_report_has_every_part(evaluated):
    out, printed = evaluated
    assert "uce" in printed
    assert "false alarms" in printed
    table = (out / "table.md").read_text()
    for column in ("leak, by its name", "leak, by a synonym that is not listed", "kept: a neighbour beside", "H_o"):
        assert column in table
    page = (out / "report.html").read_text()
    assert "mean H_o" not in table  # there is one task
    assert all("Difference of H_o, row less column" in text for text in (table, page))
    assert page.count("data:image/jpeg") == 7 * 2 * 3  # cells, prompts, recipes
    assert 'src="http' not in page
    assert set(json.loads((out / "timing.json").read_text())["seconds"]) == {"none", "nothing", "uce"}


def test_goes_on_where_it_was_killed_and_comes_to_the_same(evaluated, nothing_file, tmp_path, monkeypatch):
    out, _ = evaluated
    config = load_evaluation(nothing_file, ["timing.repeats=0"])
    with monkeypatch.context() as patch:
        kill_before(patch, lambda *_: len(list(tmp_path.rglob("*.npz"))) == 2)
        with pytest.raises(KeyboardInterrupt):
            evaluate_erasure(config, tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert len(kept) == 2
    evaluate_erasure(config, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for recipe in ("none", "nothing"):
        mine, whole = scores(tmp_path, recipe), scores(out, recipe)
        assert mine.pop("H_o differences").items() <= whole.pop("H_o differences").items()
        assert mine == whole
    assert not list(tmp_path.rglob("*.partial"))


def test_stopped_in_its_last_round_it_has_the_attacks_and_the_first_recipes_whole(config_file, tmp_path, monkeypatch):
    changes = ["timing.repeats=0", "cell=3", "generation={steps: 4, batch_size: 3}", "attack={embeddings: 2}"]
    config = load_evaluation(config_file, changes)
    with monkeypatch.context() as patch:  # the fourth of seven batches, two of them before the attack
        kill_before(patch, lambda _, recipe, batch: recipe == "uce" and batch == "00003")
        with pytest.raises(KeyboardInterrupt):
            evaluate_erasure(config, tmp_path)
    Evaluation(config, tmp_path).report()
    assert [scores(tmp_path, recipe)["pictures"] for recipe in ("none", "nothing", "uce")] == [23, 23, 11]
    assert all(scores(tmp_path, recipe)["leak"]["embeddings"]["trials"] == 2 for recipe in ("none", "nothing", "uce"))
    evaluate_erasure(config, tmp_path)
    assert scores(tmp_path, "uce")["pictures"] == 23


def test_attacks_are_told_with_their_budget_and_by_embeddings_only_of_edits(config_file, tmp_path):
    changes = ["timing.repeats=0", "cell=1", "generation={steps: 1, batch_size: 7}"]
    changes += ["attack={cases: 1, embeddings: 1, tokens: 4, population: 5, generations: 3}"]
    changes += ["tasks.another={concepts: [{name: church}]}"]
    printed = evaluate_erasure(load_evaluation(config_file, changes), tmp_path)
    table = (tmp_path / "table.md").read_text()
    budget = "4 tokens, strength 3, a population of 5, 3 generations of 3 children, so 14 texts encoded a case"
    why = "`-` where no layer that embeddings enter has been edited, because"
    for said in (budget, why):
        assert said in table
        assert said.replace("`-`", "<code>-</code>") in (tmp_path / "report.html").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line]
    column = None
    shown = {}
    for row in rows:
        if row[0] == "recipe":
            column = row.index("attack by embeddings made for the edited weights")
        elif row[0] == "":  # of differences
            column = None
        elif column is not None:
            shown.setdefault(row[0], []).append(row[column])
    assert shown["nothing"] == ["-"] * 3  # two tasks, and both together
    assert len(shown["uce"]) == len(shown["none"]) == 3
    assert not any(cell == "-" or "/" not in cell for cell in shown["uce"] + shown["none"])
    assert scores(tmp_path, "nothing")["leak"]["embeddings"]["trials"] == 1  # drawn all the same
    head, row = (next(s for s in printed.splitlines() if s.startswith(start)) for start in ("  ", "nothing"))
    assert row[head.index("embeddings") :].split()[0] == "-"


def test_a_folder_begun_with_other_settings_is_refused_and_recipes_may_be_added(evaluated, config_file):
    out, _ = evaluated
    for override, difference in (
        ("cell=3", "cell: 2 -> 3"),
        ("generation.steps=5", "generation.steps: 4 -> 5"),
        ("recipes.uce=[{method: uce, options: {lamb: 0.1}}]", "recipes.uce: "),
    ):
        with pytest.raises(ConfigError, match=difference):
            Evaluation(load_evaluation(config_file, [override]), out)
    Evaluation(load_evaluation(config_file, ["recipes.other=[{method: cease}]"]), out)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cells=3", "cells: unknown key (did you mean 'cell'?)"),
        ("generation.step=3", "generation.step: unknown key (did you mean 'steps'?)"),
        ("cell=0", "cell: is 0; expected at least 1"),
        ("tasks.one object.concepts=[{name: catt}]", "the diorama knows no 'catt' (did you mean 'cat'?)"),
        ("tasks.one object.concepts=[{name: cat, aliases: [lynx]}]", "'lynx' is no word of the diorama for 'cat'"),
        ("tasks.one object.concepts=[{name: cat}, {name: sepia}]", "has objects and styles"),
        ("tasks={}", "tasks: is empty"),
        ("recipes.uce=[{method: uec}]", "recipes.uce[0].method: unknown method 'uec' (did you mean 'uce'?)"),
        ("recipes.none=[]", "recipes.none: expected a name"),
        ("recipes.uce=[{method: uce, options: {lamda: 1}}]", "recipes.uce[0].options.lamda: uce has no such option"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(config_file, tmp_path, capsys, override, message):
    assert main(["evaluate", "erasure", str(config_file), override, "-o", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


@pytest.mark.parametrize("name", ["quick", "screen", "erasure", "attack", "fifteen"])
def test_shipped_configs_can_be_used(name):
    config = load_evaluation(f"configs/evaluation/{name}.yaml")
    assert config.tasks


def test_tuning_and_reporting_erase_different_concepts():
    tuned, reported = (
        {c.name for task in load_evaluation(f"configs/evaluation/{name}.yaml").tasks.values() for c in task.concepts}
        for name in ("screen", "erasure")
    )
    assert not (tuned | {concept.name for concept in ABLATED}) & reported


def test_a_refused_edit_is_a_finding_and_the_rest_goes_on(config_file, tmp_path):
    config = load_evaluation(config_file, ["cell=1", "timing.repeats=0", "generation.steps=1"])
    config.recipes["uce"][0].options = {"erase": 1e-9}  # moves nothing, which the self-check refuses
    printed = evaluate_erasure(config, tmp_path)
    assert "refused: one object: uce: " in printed
    assert scores(tmp_path, "nothing")["pictures"] == 7


def test_what_has_to_be_trained_is_trained_once(nothing_file, tmp_path):
    quick = "{iterations: 1, lr: 1e-3, batch_size: 1, steps: 2, size: [64, 64], templates: ['{}']}"
    changes = ["cell=1", "timing.repeats=0", "generation.steps=1", f"recipes.esd=[{{method: esd, options: {quick}}}]"]
    config = load_evaluation(nothing_file, changes)
    config.recipes = {"esd": config.recipes["esd"]}
    printed = evaluate_erasure(config, tmp_path)
    (result,) = (tmp_path / "finetuned").glob("esd-*.safetensors")
    # One iteration erases nothing, which the self-check says; a second try does not train again.
    assert "refused: one object: esd: " in printed
    before = result.stat().st_mtime_ns
    evaluate_erasure(config, tmp_path)
    assert result.stat().st_mtime_ns == before


def test_pictures_that_answer_other_questions_are_drawn_again(nothing_file, tmp_path, monkeypatch):
    """As after a change of the lexicon, or of how prompts are worded."""
    config = load_evaluation(nothing_file, ["cell=1", "timing.repeats=0", "generation.steps=1"])
    evaluate_erasure(config, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.npz")}
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.diorama.evaluated.Diorama.indefinite", lambda self, word: f"one {word}")
        evaluate_erasure(config, tmp_path)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*.npz")}
    assert before.keys() == after.keys()
    assert not [path for path in before if before[path] == after[path]]


def test_pictures_of_other_code_are_told_and_a_cut_one_is_drawn_again(nothing_file, tmp_path, monkeypatch):
    config = load_evaluation(nothing_file, ["cell=1", "timing.repeats=0", "generation.steps=1"])
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.evaluation.erasure.drawing.code_digest", lambda: "another")
        evaluate_erasure(config, tmp_path)
    cut = next(tmp_path.rglob("nothing/*.npz"))
    cut.write_bytes(cut.read_bytes()[:200])
    evaluate_erasure(config, tmp_path)
    (note,) = json.loads((tmp_path / "scores.json").read_text())["notes"]
    assert "one object: none (code another)" in note
    assert scores(tmp_path, "nothing")["pictures"] == 7


def test_tasks_under_way_weigh_the_same_in_what_is_put_together(nothing_file, tmp_path, monkeypatch):
    changes = ["timing.repeats=0", "cell=3", "generation={steps: 4, batch_size: 3}"]
    changes += ["tasks.another={concepts: [{name: church, preserve: [house, castle]}]}"]
    config = load_evaluation(nothing_file, changes)
    with monkeypatch.context() as patch:
        kill_before(patch, lambda task, recipe, batch: (task, recipe) == ("another", "nothing") and batch > "00001")
        with pytest.raises(KeyboardInterrupt):
            evaluate_erasure(config, tmp_path)
    Evaluation(config, tmp_path).report()
    tasks = json.loads((tmp_path / "scores.json").read_text())["tasks"]
    assert {t["recipes"]["none"]["leak"]["plain"]["trials"] for t in tasks.values()} == {3}
    assert {t["recipes"]["nothing"]["leak"]["plain"]["trials"] for t in tasks.values()} == {1}
    for name in ("table.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "All tasks" in text
        assert "Difference" not in text, "a recipe alone differs from none"


def test_a_model_that_does_not_show_the_concept_is_refused(nothing_file, tmp_path, capsys):
    """One step with no guidance draws nothing that B knows."""
    changes = ["cell=4", "generation.steps=1", "timing.repeats=0", "generation.guidance=1"]
    assert main(["evaluate", "erasure", str(nothing_file), *changes, "-o", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "tasks.one object: the unerased model shows what is to be erased in 0 of" in error


def test_a_file_of_weights_that_is_missing_is_no_finding(nothing_file, tmp_path, capsys):
    step = "{method: weights, options: {path: nowhere.safetensors}}"
    changes = ["cell=1", "generation.steps=1", "timing.repeats=0", f"recipes={{other: [{step}]}}"]
    assert main(["evaluate", "erasure", str(nothing_file), *changes, "-o", str(tmp_path)]) == 2
    assert "nowhere.safetensors" in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("config", "name", "content", "message"),
    [
        ("nothing_file", "settings.json", '{"settings', "settings.json: is damaged"),
        ("nothing_file", "settings.json", "{}", "settings.json: has no 'settings'"),
        ("nothing_file", "timing.json", "", "timing.json: is damaged"),
        ("config_file", "recipes/one object/uce/record.json", "{}", "record.json: has no 'steps'"),
    ],
)
def test_a_damaged_folder_is_one_line(request, tmp_path, capsys, config, name, content, message):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content)
    changes = ["cell=1", "generation.steps=1", "timing={repeats: 1, batch_size: 1}"]
    assert main(["evaluate", "erasure", str(request.getfixturevalue(config)), *changes, "-o", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("lacuna: ")
    assert message in error


def test_an_output_that_is_no_folder_is_one_line(config_file, capsys):
    for out in (config_file, config_file / "below", "/proc/nowhere"):
        assert main(["evaluate", "erasure", str(config_file), "-o", str(out)]) == 2
        error = capsys.readouterr().err.strip()
        assert "is no folder to write to" in error
        assert "\n" not in error


def test_timing_with_other_repeats_is_measured_again(nothing_file, tmp_path):
    for repeats in (1, 2):
        changes = ["cell=1", "generation.steps=1"]
        config = load_evaluation(nothing_file, [*changes, f"timing={{repeats: {repeats}, batch_size: 1}}"])
        evaluate_erasure(config, tmp_path)
        timing = json.loads((tmp_path / "timing.json").read_text())
        assert len(timing["seconds"]["nothing"]["concerned"]) == repeats


def test_more_tokens_than_the_model_reads_are_refused_before_any_picture(config_file, tmp_path, capsys):
    changes = ["attack.cases=1", "attack.tokens=200"]
    assert main(["evaluate", "erasure", str(config_file), *changes, "-o", str(tmp_path)]) == 2
    assert "attack.tokens: is 200; this model's prompts have at most" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.npz"))
