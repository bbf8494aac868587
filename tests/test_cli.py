"""The command line, as a user has it: each command on a small corpus, exit codes, and one line for what is wrong."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli import main
from tests import tiny

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
model: {{path: {model}, dtype: float32}}
erasure:
  concepts: [{{name: light, anchor: dark}}]
  recipe: []
prompts: {{source: prompts.txt}}
generation: {{steps: 2, size: [32, 32], compile: none, batch_size: 4}}
audit: {{detectors: [{{detector: "tests.eyes:Brightness", options: {{cut: 0.0}}}}], policy: quarantine}}
output: {{path: {output}, samples_per_shard: 4}}
cluster: {{backend: local, device: cpu}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config, and its corpus in ``corpus``: everything is light, so everything is quarantined."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "prompts.txt").write_text("".join(f"a light and a dog {i}\n" for i in range(8)))
    (folder / "config.yaml").write_text(CONFIG.format(model=tiny.path(), output=folder / "corpus"))
    kept = CONFIG.replace("policy: quarantine", "policy: keep").format(model=tiny.path(), output=folder / "kept")
    (folder / "kept.yaml").write_text(kept)
    assert main(["run", str(folder / "config.yaml")]) == 1, "nothing is kept"
    return folder


def test_run_says_what_came_of_it_and_a_second_one_finds_nothing_to_do(folder: Path, capsys) -> None:
    assert main(["run", str(folder / "config.yaml")]) == 1
    assert f"{folder}/corpus: 2 of 2 shards, 8 quarantined" in capsys.readouterr().out


@pytest.mark.slow
def test_make_run_shows_the_status_of_its_own_config(folder: Path) -> None:
    binaries = Path(sys.executable).parent
    done = subprocess.run(  # -o: what is installed already is not installed again
        ["make", "-C", str(ROOT), "-o", ".venv/.run", "run", f"BIN={binaries}", f"CONFIG={folder / 'kept.yaml'}"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"corpus      {folder}/kept\n" in done.stdout


def test_show_prints_a_config_that_loads_again_and_its_identity(folder: Path, capsys, tmp_path: Path) -> None:
    assert main(["show", str(folder / "config.yaml"), "seed=3"]) == 0
    shown = capsys.readouterr().out
    assert "seed: 3" in shown
    assert "# identity: " in shown
    (tmp_path / "again.yaml").write_text(shown)
    assert main(["show", str(tmp_path / "again.yaml")]) == 0
    assert capsys.readouterr().out == shown


def test_show_settles_a_dtype_of_auto(folder: Path, capsys) -> None:
    assert main(["show", str(folder / "config.yaml"), "model.dtype=auto"]) == 0
    assert "dtype: auto" not in capsys.readouterr().out


def test_plan_without_and_with_a_measured_batch(folder: Path, capsys) -> None:
    assert main(["plan", "--no-measure", str(folder / "config.yaml")]) == 0
    dry = capsys.readouterr().out.splitlines()
    assert "images    8, 32x32 where a row does not say otherwise" in dry
    assert "shards    2 of up to 4 images" in dry
    assert "concepts  100.00 % of prompts name a listed concept (all looked at)" in dry
    assert any(re.fullmatch(r"  00000000000  +\d+  a light and a dog \d", line) for line in dry)
    assert not any(line.startswith(("size", "time", "cost")) for line in dry)
    figures = {}
    elsewhere = ["generation.batch_size=2", f"output.path={folder / 'elsewhere'}"]
    unseen = "anchors   'sofa' of 'light' is unknown to the detectors, so no caption will name it\n"
    for price, anchor in (([], "sofa"), (["--price", "2"], "dark")):
        more = [*elsewhere, f"erasure.concepts[0].anchor={anchor}"]
        assert main(["plan", *price, str(folder / "config.yaml"), *more]) == 0
        out = capsys.readouterr().out
        assert (unseen in out) == (anchor == "sofa")
        lines = [line for line in out.splitlines() if line.startswith(("size", "time", "cost"))]
        figures[bool(price)] = lines
    number = r"[\d.,e-]+"
    time = rf"time      about \d+ s on 1 worker \({number} s per image, start-up aside\)"
    size = rf"size      about {number} kB \({number} k?B per picture and 3.02 kB around it\)"
    cost = rf"cost      about {number} worker-hours"
    for price, pattern in ((False, cost), (True, rf"{cost}, {number} at 2 per worker and hour")):
        assert len(figures[price]) == 3
        for line, expected in zip(figures[price], (size, time, pattern), strict=True):
            assert re.fullmatch(expected, line), line


def test_plan_tells_what_is_at_the_output_and_refuses_what_a_run_would(folder: Path, capsys, tmp_path: Path) -> None:
    plan = ["plan", "--no-measure", str(folder / "config.yaml")]
    assert main(plan) == 0
    assert f"output    {folder}/corpus: complete, 2 of 2 shards\n" in capsys.readouterr().out
    copy = Path(shutil.copytree(folder / "corpus", tmp_path / "copy"))
    (copy / "commits/000001.json").unlink()
    assert main([*plan, f"output.path={copy}"]) == 0
    assert f"output    {copy}: 1 of 2 shards, 1 left\n" in capsys.readouterr().out
    assert main([*plan, "seed=9"]) == 2
    assert f"{folder}/corpus: holds another corpus (seed: 0 -> 9)" in capsys.readouterr().err
    assert main([*plan, "model.scheduler=DDIMScheduler", "model.scheduler_options={steps_ofset: 1}"]) == 2
    error = capsys.readouterr().err
    assert "steps_ofset: DDIMScheduler has no such option (did you mean 'steps_offset'?)" in error, "no other corpus"
    assert main([*plan, f"output.path={tmp_path}/new/one", "seed=9"]) == 0
    assert f"output    {tmp_path}/new/one: nothing is there yet\n" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    assert main([*plan, f"output.path={tmp_path}/file/x"]) == 2
    assert "/file/x" in capsys.readouterr().err
    shutil.copytree(folder / "corpus.evidence", tmp_path / "other.evidence")
    assert main([*plan, f"output.path={tmp_path}/other", "seed=9"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_plan_show_and_status_import_no_torch(folder: Path) -> None:
    commands = [["plan", "--no-measure", str(folder / "config.yaml")], ["show", str(folder / "config.yaml")]]
    commands += [["status", str(folder / "corpus")]]
    script = f"import sys; from pipeline.cli import main\nfor c in {commands!r}: assert main(c) == 0\n"
    script += "assert not {'torch', 'diffusers', 'ray'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_preview_prints_the_page(folder: Path, capsys) -> None:
    assert main(["preview", "-n", "2", str(folder / "config.yaml"), "-o", str(folder / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "page.html")


def test_status_verify_finish_and_purge(folder: Path, capsys) -> None:
    corpus = str(folder / "corpus")
    assert main(["status", corpus]) == 0
    assert "2 of 2 shards, 8 of 8 samples" in capsys.readouterr().out
    assert main(["verify", corpus]) == 0
    assert capsys.readouterr().out == f"{corpus}: sound\n"
    assert main(["finish", corpus]) == 0
    assert f"{corpus}/report.html" in capsys.readouterr().out
    assert main(["purge", corpus]) == 0
    assert "files of evidence deleted" in capsys.readouterr().out
    assert main(["verify", corpus]) == 0
    assert "light: 8 quarantined" in status(corpus, capsys)  # the record stays
    manifest = folder / "corpus/manifests/000001.parquet"
    data = manifest.read_bytes()
    manifest.unlink()
    assert main(["verify", corpus]) == 1
    assert "manifests/000001.parquet: missing" in capsys.readouterr().out
    manifest.write_bytes(data)


def status(corpus: str, capsys) -> str:
    capsys.readouterr()
    assert main(["status", corpus]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["show", "nowhere.yaml"], "lacuna: nowhere.yaml: no such config file"),
        (["status", "nowhere"], "no corpus is here"),
        (["verify", "s4://bucket"], "unknown kind of storage 's4'"),
        (["status", "nowhere", "--storage", "endpoint"], "--storage endpoint: expected KEY=VALUE"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_two(words, expected, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert expected in err


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ('erasure.recipe=[{"method":"json:JSONDecoder"}]', "is no subclass of pipeline.erasure.method.Method"),
        ("audit.detectors.0.detector=json:JSONDecoder", "is no subclass of pipeline.audit.detector.Detector"),
        ("audit.detectors.0.detector=diorama audit.detectors.0.options={}", "cannot judge the concept 'light'"),
        (
            "audit.detectors.0.detector=diorama audit.detectors.0.options={} "
            "erasure.concepts.0.name=cat erasure.concepts.0.anchor=dog",
            "cannot judge pictures of 32x32 pixels",
        ),
        ("model.path=tests", "model.path: "),
    ],
)
def test_what_a_run_cannot_use_is_one_line_and_exit_code_two(overrides, expected, folder, tmp_path, capsys) -> None:
    words = [f"output.path={tmp_path / 'corpus'}", *overrides.split(" ")]
    assert main(["run", str(folder / "config.yaml"), *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1), err
    assert expected in err


@pytest.mark.parametrize("words", [["preview", "-n", "0"], ["plan", "--price", "-1"], ["plan", "--price", "nan"]])
def test_numbers_that_cannot_be_are_refused(words, folder: Path, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words, str(folder / "config.yaml")])
    assert caught.value.code == 2


@pytest.mark.parametrize("words", [[], ["rnu"], ["run"], ["show", "c.yaml", "--fast"]])
def test_words_that_are_no_command_exit_with_two(words, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: lacuna" in capsys.readouterr().err


def test_overrides_are_not_called_required(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["run"])
    assert capsys.readouterr().err.endswith("the following arguments are required: CONFIG\n")


@pytest.mark.slow
def test_without_docstrings_what_reads_works_and_what_draws_says_that_it_cannot(folder: Path, tmp_path: Path) -> None:
    script = "from pipeline.cli import entry; entry()"

    def lacuna(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-OO", "-c", script, *words]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})

    config = str(folder / "config.yaml")
    for words in (["status", str(folder / "corpus")], ["show", config], ["plan", "--no-measure", config]):
        done = lacuna(*words)
        assert (done.returncode, done.stderr) == (0, ""), words
    for command in ("run", "words"):
        done = lacuna(command, config, f"output.path={tmp_path / 'corpus'}")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("lacuna: python -OO takes away the docstrings")
        assert done.stderr.count("\n") == 1


def test_an_evaluation_whose_folder_cannot_be_written_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "diorama", "-n", "16", "-o", "/proc/nowhere"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "lacuna: /proc/nowhere: No such file or directory\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_options_and_files(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")  # a dependency, which environments that are older than it lack
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "lacuna" in script
    assert "accept-environment" in script
    if shell == "bash":
        typed = 'COMP_WORDS=(lacuna ver); COMP_CWORD=1; _shtab_lacuna; echo "${COMPREPLY[@]}"'
        done = subprocess.run(["bash", "-c", f"{script}\n{typed}"], capture_output=True, text=True)
        assert done.stdout.split() == ["verify"]


def test_a_process_ends_with_its_code_before_the_interpreter_is_taken_down(tmp_path):
    """What is registered for the exit runs; what only the end of the interpreter would do, does not."""
    script = (
        "import atexit, sys, pipeline.cli\n"
        "class Late:\n"
        "    def __del__(self, write=sys.stdout.write, flush=sys.stdout.flush): write('taken down'), flush()\n"
        "late = Late()\n"
        "atexit.register(print, 'registered')\n"
        f"sys.argv = ['lacuna', 'show', {str(tmp_path / 'absent.yaml')!r}]\n"
    )
    ends = {"pipeline.cli.entry()": (2, "registered\n"), "sys.exit(pipeline.cli.main())": (2, "registered\ntaken down")}
    for end, expected in ends.items():
        done = subprocess.run([sys.executable, "-c", script + end], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == expected, done.stderr


def test_ctrl_c_while_a_command_that_is_done_ends_shows_no_traceback() -> None:
    """As while a library puts its things away."""
    code = (
        "import atexit, os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT));"
        "sys.argv = ['lacuna', 'show', 'configs/quickstart.yaml']; from pipeline.cli import entry; entry()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
    assert done.stdout.rstrip().splitlines()[-1].startswith("# identity: "), "it is whole"
