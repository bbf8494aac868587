"""A run, and what is told of it before it begins: `run`, `show`, `plan`."""

import argparse
import contextlib
from dataclasses import replace

from pipeline.commands.shared import Commands, need_docstrings, say
from pipeline.settled import as_a_run_begins, read_checked
from pipeline.terminal import ReaderGone, tell

LATER = "settled when the run begins"  # in place of an identity


def _run(args: argparse.Namespace) -> int:
    need_docstrings()
    from pipeline.config import load_config
    from pipeline.run import run

    config = load_config(args.config, args.overrides)  # a dtype of auto is for the workers' devices to settle
    outcome = run(config, accept_environment=args.accept_environment)
    with contextlib.suppress(ReaderGone):  # what it did stands, whoever hears of it
        tell(outcome.message)
    return outcome.exit_code


def _show(args: argparse.Namespace) -> int:
    from pipeline.audit.compatibility import check_detectors_here
    from pipeline.config import identity, is_settled, load_config, to_public_yaml
    from pipeline.config.extras import check_extras_of_source, missing_extras, told
    from pipeline.erasure.compatibility import check_recipe_here
    from pipeline.prompts import open_source

    config = load_config(args.config, args.overrides)
    check_recipe_here(config)
    check_detectors_here(config)
    check_extras_of_source(config)
    config, _ = as_a_run_begins(config, here=True)
    fingerprint = open_source(config.prompts).fingerprint
    name = identity(config, fingerprint).digest if is_settled(config) else LATER
    lines = [f"{to_public_yaml(config)}# identity: {name}"]
    if missing := missing_extras(config):
        lines.append(f"# it asks for {told(missing)}")
    tell("\n".join(lines))
    return 0


def _plan(args: argparse.Namespace) -> int:
    from pipeline.config import is_settled
    from pipeline.config.extras import missing_extras, told
    from pipeline.corpus.outlook import outlook
    from pipeline.models.settle import stand_in
    from pipeline.prompts import Plan, open_source
    from pipeline.prompts.report import plan_report

    config, notes = as_a_run_begins(read_checked(args), here=args.no_measure)
    settled = is_settled(config)
    plan = Plan.build(stand_in(config), open_source(config.prompts))
    there = outlook(config, plan.summary(), settled=settled)
    measured = None
    if not args.no_measure:
        need_docstrings()
        from pipeline.audit.compatibility import unseen_anchors
        from pipeline.workshop.preview import measure

        measured = measure(config, plan, say)
        notes += unseen_anchors(config)
    if missing := missing_extras(config):
        notes.append(f"missing   {told(missing)}")
    report = plan_report(config, plan, measured=measured, price=args.price, there=there)
    tell(report.text() if settled else replace(report, identity=LATER).text())
    if notes:
        tell("\n".join(notes))
    return 0


COMMANDS: Commands = {
    "run": _run,
    "show": _show,
    "plan": _plan,
}
