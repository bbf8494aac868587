"""A whole run, of 16 pictures, on machines as people have them: each place makes the corpus that a quiet one makes."""

import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.corpus import verify
from pipeline.terminal import READER_GONE

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
model: {path: diorama, dtype: float32}
erasure: {concepts: [{name: cat, anchor: dog}], recipe: [{method: cease}]}
prompts: {source: prompts.txt}
generation: {steps: 1, size: [64, 64], compile: none, batch_size: 8}
audit: {detectors: [{detector: "my_det:Red"}]}
output: {path: unused, samples_per_shard: 8}
cluster: {device: cpu, workers: {min: 1, max: 1}}
"""
DETECTOR = """
import numpy as np
from pipeline.audit.detector import Detector
class Red(Detector):
    def knows(self, term): return True
    def threshold(self, term): return 0.99
    def score(self, images, terms):
        return np.repeat(images[..., :1].mean(axis=(1, 2), dtype=np.float32) / 255, len(terms), axis=1)
"""
# As the installed script: where the user stands is not on the path of modules.
LACUNA = [sys.executable, "-P", "-c", "from pipeline.cli import entry; entry()"]
LOCAL = "cluster.backend=local"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the user stands: with a config, a detector of their own, and a module that has our package's name."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "prompts.txt").write_text("".join(f"a cat and a dog {i}\n" for i in range(16)))
    (folder / "my_det.py").write_text(DETECTOR)
    (folder / "pipeline.py").write_text("raise AssertionError('this is no Lacuna')\n")
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, bytes]:
    done = subprocess.run(run("quiet", LOCAL), cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return files_of(folder / "quiet")


def run(output: str, *overrides: str) -> list[str]:
    return [*LACUNA, "run", "config.yaml", f"output.path={output}", *overrides]


def environment(**changed: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "LC_", "LANG"))}
    return {**kept, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local", **changed}


def files_of(corpus: Path) -> dict[str, bytes]:
    files = [*corpus.glob("train/*.tar"), *corpus.glob("manifests/*.parquet")]
    assert len(files) == 4
    return {str(path.relative_to(corpus)): path.read_bytes() for path in files}


def check(corpus: Path, expected: dict[str, bytes]) -> None:
    assert files_of(corpus) == expected
    assert (corpus / "report.html").exists()
    assert verify(str(corpus)) == []


def on_a_terminal(command: list[str], folder: Path, columns: int, **changed: str) -> tuple[int, str]:
    """Run *command* on a terminal of so many columns; return its exit code and what the terminal receives."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        command, cwd=folder, env=environment(**changed), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    try:
        while data := os.read(ours, 4096):
            seen += data
    except OSError:  # how Linux says that nobody has the other end open any more
        pass
    os.close(ours)
    return process.wait(), seen.decode()


@pytest.mark.slow
def test_with_ray_below_uv_without_home_and_with_a_long_tmpdir_read_by_nobody(
    folder: Path, expected: dict[str, bytes]
) -> None:
    """What hinders Ray, all at once: each of these alone ended a run or stood in its way for ten minutes."""
    (folder / "run").write_text(f'set -- {" ".join(map(repr, run("ray/données")))}\n"$@"\nexit $?\n')
    changed = {"HOME": "/dev/null", "TMPDIR": "/tmp/" + 90 * "x", "PYTHONIOENCODING": "ascii"}
    # A shell of this name and with this script is to Ray what `uv run` is.
    process = subprocess.Popen(
        ["uv", "run"], executable="/bin/sh", cwd=folder, env=environment(**changed),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    out, _ = process.communicate()
    assert process.returncode == 0
    assert b"ray/donn\\xe9es: 2 of 2 shards, 16 ok\n" in out
    check(folder / "ray/données", expected)


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["log", "terminal"])
def test_where_the_locale_is_ascii_and_the_log_or_the_terminal_is_closed(
    closed: str, folder: Path, expected: dict[str, bytes]
) -> None:
    output = f"closed/données-{closed}"
    changed = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = subprocess.Popen(
        run(output, LOCAL), cwd=folder, env=environment(**changed), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stderr.readline()
    if closed == "terminal":
        process.send_signal(signal.SIGHUP)
        assert process.communicate()[0].decode().startswith(f"{output}: 2 of 2 shards, 16 ok\n")
    else:
        process.stderr.close()
        process.stdout.close()
        process.wait()
    assert process.returncode == 0
    check(folder / output, expected)


@pytest.mark.slow
@pytest.mark.parametrize(("term", "columns"), [("dumb", 80), ("xterm", 40)])
def test_on_terminals(term: str, columns: int, folder: Path, expected: dict[str, bytes]) -> None:
    code, seen = on_a_terminal(run(term, LOCAL), folder, columns, TERM=term)
    assert code == 0, seen
    lines = [line for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", seen).replace("\r", "\n").splitlines() if line]
    if term == "dumb":
        assert "\x1b" not in seen
        assert "lacuna: 0/2 shards, warming up, 1 worker" in lines
    else:
        assert "| lacuna run: reading and loading" in seen, "something moves before torch is there"
        assert any(line.strip("━ ").startswith("100% 2/2 shards") for line in lines)
    check(folder / term, expected)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_is_read_is_escaped_where_it_cannot_be_spelt(
    encoding: str, folder: Path, expected: dict[str, bytes]
) -> None:
    (folder / f"猫 {encoding}").symlink_to(folder / "quiet")
    template = ["prompts.source=null", "prompts.template=a 猫 \x1b[2J"]
    for words, shown in (
        (["verify", f"猫 {encoding}"], f"\\u732b {encoding}: sound\n"),
        (["plan", "--no-measure", "config.yaml", *template], "  a \\u732b \\x1b[2J"),
    ):
        done = subprocess.run(
            [*LACUNA, *words], cwd=folder, env=environment(PYTHONIOENCODING=encoding), capture_output=True
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert shown in done.stdout.decode(encoding)
        assert b"\x1b" not in done.stdout


@pytest.mark.slow
def test_a_reader_that_leaves_and_a_full_disk(folder: Path, expected: dict[str, bytes]) -> None:
    for words in (["status", "quiet"], ["show", "config.yaml"], ["verify", "quiet"]):
        ours, theirs = os.pipe()
        os.close(ours)
        done = subprocess.run([*LACUNA, *words], cwd=folder, env=environment(), stdout=theirs, stderr=subprocess.PIPE)
        os.close(theirs)
        assert (done.returncode, done.stderr) == (READER_GONE, b"")
        with open("/dev/full", "wb") as full:
            done = subprocess.run([*LACUNA, *words], cwd=folder, env=environment(), stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 2
        assert done.stderr == b"lacuna: standard output cannot be written: No space left on device\n"


def test_an_argument_that_is_no_text_is_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["show", "config.yaml", "output.path=o/b\udcff"])
    assert caught.value.code == 2
    assert "is no text in UTF-8" in capsys.readouterr().err
