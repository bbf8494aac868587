"""A job that is given what it cannot work with ends in one line, and no fault of ours is hidden by that."""

import sys

import pytest

from jobs.refusal import in_one_line
from pipeline.errors import ConfigError, LacunaError


def test_what_is_refused_is_told_in_a_line_that_names_the_job(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["jobs/some_job.py", "x"])
    for error, expected, said in (
        (ConfigError("x: is no file"), "", "some_job: x: is no file\n"),
        (LacunaError("x: is no file"), "a file", "some_job: x: is no file; expected a file\n"),
    ):
        with pytest.raises(SystemExit) as ended, in_one_line(expected):
            raise error
        assert ended.value.code == 2
        assert capsys.readouterr().err == said


def test_what_is_no_refusal_goes_on() -> None:
    with pytest.raises(KeyError), in_one_line():
        raise KeyError("x")
