"""What is printed reaches a person, whatever reads it, and does to their terminal nothing but show text."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from pipeline.terminal import READER_GONE, printable, wrapped

ROOT = Path(__file__).resolve().parents[1]
# Tells a picture's path and warns of it, as commands do.
SCRIPT = """
import sys
from pipeline.errors import LacunaError
from pipeline.terminal import READER_GONE, ReaderGone, settle_streams, tell
settle_streams()
try:
    for i in range(2000):
        print("a warning about données", i, file=sys.stderr)
        tell(f"données {i}")
except ReaderGone:
    sys.exit(READER_GONE)
except LacunaError as error:
    print(f"lacuna: {error}", file=sys.stderr)
    sys.exit(2)
"""


def script(**streams) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **streams.pop("env", {})}
    return subprocess.Popen([sys.executable, "-c", SCRIPT], env=environment, **streams)


def test_what_a_terminal_would_obey_is_shown_instead() -> None:
    text = "a \x1b[31mred\x1b[0m cat\x07 \x9b2J \x7f \u202ekcab\u2066 \u2028\r\n\tend"
    shown = "a \\x1b[31mred\\x1b[0m cat\\x07 \\x9b2J \\x7f \\u202ekcab\\u2066 \\u2028\\r"
    assert printable(text) == shown + "\\n\\tend"
    assert printable(text, lines=True) == shown + "\n\tend"
    plain = "données, 猫, family 👨‍👩‍👧, שלום"
    assert printable(plain) == plain


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_characters_that_the_output_lacks_are_escapes(encoding: str) -> None:
    process = script(stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"PYTHONIOENCODING": encoding})
    out, err = process.communicate()
    assert process.returncode == 0
    assert out.decode(encoding).splitlines()[0] == ("donn\\xe9es 0" if encoding == "ascii" else "données 0")
    assert len(err.splitlines()) == 2000


def test_a_reader_that_leaves_ends_a_command_quietly(tmp_path: Path) -> None:
    with (tmp_path / "errors").open("w+b") as errors:
        process = script(stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait() == READER_GONE
        errors.seek(0)
        assert "Traceback" not in errors.read().decode()


def test_a_full_output_is_one_line() -> None:
    with open("/dev/full", "wb") as full:
        process = script(stdout=full, stderr=subprocess.PIPE)
        _, err = process.communicate()
    assert process.returncode == 2
    assert err.decode().splitlines()[1:] == ["lacuna: standard output cannot be written: No space left on device"]


def test_nobody_need_read_standard_error(tmp_path: Path) -> None:
    process = script(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.close()
    out, _ = process.communicate()
    assert (process.returncode, len(out.splitlines())) == (0, 2000)
    with open("/dev/full", "wb") as full:
        process = script(stdout=subprocess.PIPE, stderr=full)
        out, _ = process.communicate()
    assert (process.returncode, len(out.splitlines())) == (0, 2000)


def test_closed_streams_are_not_taken_by_files(tmp_path: Path) -> None:
    code = "import os; from pipeline.terminal import settle_streams; settle_streams(); open(os.environ['F'], 'w')\n"
    code += "os.write(1, b'lost'); os.write(2, b'lost')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "F": str(tmp_path / "file")}
    subprocess.run(["sh", "-c", 'exec "$0" -c "$1" >&- 2>&-', sys.executable, code], env=environment, check=True)
    assert (tmp_path / "file").read_text() == ""


def test_a_terminal_shows_that_something_is_under_way_until_there_is_more_to_show() -> None:
    script = "import sys, time; from pipeline.terminal import busy, settle_streams, tell; settle_streams()\n"
    script += "with busy('lacuna show: loading'):\n    time.sleep(1)\n    print('a warning', file=sys.stderr)\n"
    script += "    time.sleep(1)\n    tell('done')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    ours, theirs = os.openpty()
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert process.wait() == 0
    seen = os.read(ours, 4096).decode()
    os.close(ours)
    moving, rest = seen.split("\r\x1b[2K")
    assert moving.startswith("\r| lacuna show: loading\r/ lacuna show: loading")
    assert rest == "a warning\r\ndone\r\n"
    environment["TERM"] = "dumb"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("done\n", "a warning\n")


def test_a_long_line_is_broken_at_blanks_and_goes_on_beside_its_label() -> None:
    line = "  means      wildcat 0.81, AK-47 0.80, tabby 0.79"
    assert wrapped(line, 30, 13) == "  means      wildcat 0.81,\n             AK-47 0.80, tabby\n             0.79"
    assert wrapped(line, len(line), 13) == line
    assert wrapped(line, 3, 2).split() == line.split(), "a word is not broken"
    assert wrapped("", 30, 2) == ""
    wide = wrapped("  words      " + ", ".join(["猫科动物"] * 9), 60, 13)
    assert [cell_len(own) for own in wide.splitlines()] == [52, 52, 21], "four words and three blanks take 39 columns"
    assert [own.strip() for own in wide.splitlines()][2] == "猫科动物"
