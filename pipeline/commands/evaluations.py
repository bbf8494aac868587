"""Measurements of the built-in model and of erasure: `evaluate`."""

import argparse
from pathlib import Path

from pipeline.commands.shared import Commands, need_docstrings
from pipeline.terminal import tell


def _results(args: argparse.Namespace) -> Path | None:
    from pipeline.evaluation.results import results_file

    return results_file(args.results) if args.results else None


def _evaluate_suite(args: argparse.Namespace) -> int:
    need_docstrings()
    from pipeline.registry import SUITES, load_function

    tell(load_function("suite", args.suite, SUITES)(args.output, args.images, results=_results(args)))
    return 0


def _evaluate_erasure(args: argparse.Namespace) -> int:
    need_docstrings()
    from pipeline.evaluation.erasure.config import load_evaluation

    config = load_evaluation(args.config, args.overrides)
    from pipeline.evaluation.erasure.evaluate import evaluate_erasure

    tell(evaluate_erasure(config, args.output or f"out/evaluate-{Path(args.config).stem}", _results(args)))
    return 0


COMMANDS: Commands = {
    "evaluate suite": _evaluate_suite,
    "evaluate erasure": _evaluate_erasure,
}
