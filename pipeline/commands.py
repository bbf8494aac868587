"""What each `lacuna` command does with its arguments.

Every one imports what it needs when it runs, so that `show`, `plan` and `status` do not wait for torch (but where an
`auto` makes it look for a GPU, or a recipe has steps that are checked against the model's family).
"""

import argparse
import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline.arguments import completion, storage_options
from pipeline.errors import LacunaError
from pipeline.settled import as_a_run_begins, read_checked, read_settled, read_settled_as_listed
from pipeline.terminal import ReaderGone, columns, printable, tell

LATER = "settled when the run begins"  # in place of an identity


def _need_docstrings() -> None:
    """Refuse to draw without docstrings: ``transformers`` makes some of its own from others when it is imported."""
    if sys.flags.optimize > 1:
        raise LacunaError(
            "python -OO takes away the docstrings that transformers needs when it is imported: run this command with "
            "python or python -O, and without PYTHONOPTIMIZE=2"
        )


def _run(args: argparse.Namespace) -> int:
    _need_docstrings()
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
        _need_docstrings()
        from pipeline.audit.compatibility import unseen_anchors
        from pipeline.workshop.preview import measure

        measured = measure(config, plan, _say)
        notes += unseen_anchors(config)
    if missing := missing_extras(config):
        notes.append(f"missing   {told(missing)}")
    report = plan_report(config, plan, measured=measured, price=args.price, there=there)
    tell(report.text() if settled else replace(report, identity=LATER).text())
    if notes:
        tell("\n".join(notes))
    return 0


def _words(args: argparse.Namespace) -> int:
    _need_docstrings()
    import json

    from pipeline.config import load_config
    from pipeline.workshop.words import words_report

    _check_words(args)
    if args.prove:
        return _prove(args)
    if args.page is not None:
        return _words_page(args)
    config = load_config(args.config, args.overrides)
    config = replace(config, words=replace(config.words, require=False))  # what is not proved yet can be looked at
    report = words_report(as_a_run_begins(config, here=True)[0])
    tell(json.dumps(report.json(), ensure_ascii=False, indent=2) if args.json else report.text(columns()))
    return 0


def _check_words(args: argparse.Namespace) -> None:
    """Raise ``LacunaError`` for an option that the rest of the command has no use for."""
    if args.page is not None and args.prove:
        raise LacunaError("--page shows what is drawn, and --prove draws: give first the one, then the other")
    if args.page is not None and args.json:
        raise LacunaError("--json is not for --page")
    if args.page and args.write is not None:
        raise LacunaError("--write is for a page that is served, which --page without a FILE does")
    for option, used in (("budget", args.prove), ("price", args.prove), ("write", args.prove or args.page is not None)):
        if getattr(args, option) is not None and not used:
            raise LacunaError(f"--{option} is for --prove" + (" and --page" if option == "write" else ""))


def _words_page(args: argparse.Namespace) -> int:
    from pipeline.files import write_whole
    from pipeline.workshop.served import PageServer
    from pipeline.workshop.words_page import WordsPage

    page = WordsPage(read_settled_as_listed(args))
    if args.page:
        write_whole(Path(args.page), page.html(live=False).encode())
        tell(args.page)
        return 0
    path = None if args.write is None else Path(args.write)
    server = PageServer(
        lambda: page.html(live=path is not None), None if path is None else lambda choices: page.save(path, choices)
    )
    saves = "nothing is saved without --write" if path is None else f"it saves to {path}"
    tell(f"{server.url}\nopen it in a browser on this machine; {saves}; Ctrl-C ends it")
    with contextlib.suppress(KeyboardInterrupt):
        server.serve()
    return 0


def _prove(args: argparse.Namespace) -> int:
    import json

    from pipeline.files import write_whole
    from pipeline.workshop.prove import as_list, prove

    config = read_settled_as_listed(args)
    proof = prove(config, everything=args.prove == "all", budget=args.budget, price=args.price, say=_say)
    if args.write and not proof.exit_code:
        write_whole(Path(args.write), as_list(config, proof).encode())
    tell(json.dumps(proof.record(), ensure_ascii=False, indent=2) if args.json else proof.text(columns()))
    return proof.exit_code


def _say(line: str) -> None:
    print(f"lacuna: {printable(line)}", file=sys.stderr)


def _preview(args: argparse.Namespace) -> int:
    _need_docstrings()
    from pipeline.workshop.preview import write_preview

    tell(write_preview(read_settled(args), args.images, args.output))
    return 0


def _explain(args: argparse.Namespace) -> int:
    _need_docstrings()
    from pipeline.workshop.explain import write_explanation

    tell(write_explanation(read_settled(args), args.prompt, args.output))
    return 0


def _calibrate(args: argparse.Namespace) -> int:
    _need_docstrings()
    from pipeline.audit.compatibility import check_detectors
    from pipeline.config import is_settled, load_config
    from pipeline.corpus import open_store
    from pipeline.corpus.resume import follow
    from pipeline.evaluation.words.settle import with_proved_words
    from pipeline.files import write_whole
    from pipeline.models.settle import settle_here
    from pipeline.workshop.calibrate import calibrate

    config = load_config(args.config, args.overrides)
    check_detectors(config)
    store = open_store(config.output.path, config.output.storage_options)
    config = settle_here(follow(config, store))
    if is_settled(config):  # a detector may go by proved words too
        config, _ = with_proved_words(config, store)
    report = calibrate(config, Path(args.pictures), args.false_alarms)
    write_whole(Path(args.output), report.calibration.write())
    if args.page:
        write_whole(Path(args.page), report.page().encode())
    tell("\n".join([report.text(), *filter(None, (args.output, args.page))]))
    return 0


def _finetune(args: argparse.Namespace) -> int:
    _need_docstrings()
    from pipeline.workshop.finetune import finetune

    for path in finetune(read_settled(args), args.checkpoint_every):
        tell(str(path))
    return 0


def _export(args: argparse.Namespace) -> int:
    _need_docstrings()
    from pipeline.workshop.export import export

    tell(str(export(read_settled(args), args.folder, edits_only=args.edits_only)))
    return 0


def _status(args: argparse.Namespace) -> int:
    from pipeline.corpus import status

    tell(status(args.path, storage_options(args.storage)).text())
    return 0


def _verify(args: argparse.Namespace) -> int:
    from pipeline.corpus import inspect

    found = inspect(args.path, storage_options(args.storage))
    count = len(found.problems)
    verdict = f"{count} problem{'s' * (count != 1)}" if count else "sound"
    same = " with the same --storage" if args.storage else ""
    remedies = (f"{line}{same}" for line in found.remedies(args.path))
    tell("\n".join([*found.problems, f"{args.path}: {verdict}", *remedies]))
    return 1 if count else 0


def _repair(args: argparse.Namespace) -> int:
    from pipeline.config import load_config
    from pipeline.repair import recorded_config, repair

    if Path(args.what).is_file() or args.what.endswith((".yaml", ".yml")):
        if args.storage:
            raise LacunaError("--storage is for a corpus; a config says it itself: output.storage_options={KEY: VALUE}")
        config = load_config(args.what, args.overrides)
    elif args.overrides:
        raise LacunaError(f"{args.what}: is no config file, so it takes no {args.overrides[0]}")
    else:
        config = recorded_config(args.what, storage_options(args.storage))
    done = repair(config, accept_environment=args.accept_environment)
    lines = [*done.mended, *done.left, *([done.message] if done.message else [])]
    count = f"{len(done.mended)} mended, {len(done.left)} left" if done.mended or done.left else "nothing to repair"
    with contextlib.suppress(ReaderGone):  # what it did stands, whoever hears of it
        tell("\n".join([*lines, f"{config.output.path}: {count}"]))
    return 1 if done.left else done.exit_code


def _finish(args: argparse.Namespace) -> int:
    from pipeline.corpus import finish

    finished = finish(args.path, storage_options(args.storage))
    tell("\n".join([*finished.written, *(f"left out: {line}" for line in finished.damaged)]))
    return 1 if finished.damaged else 0


def _purge(args: argparse.Namespace) -> int:
    from pipeline.corpus import evidence_url, purge_evidence, purged_on

    before, where = purged_on(args.path, storage_options(args.storage)), evidence_url(args.path)
    if deleted := purge_evidence(args.path, storage_options(args.storage)):
        tell(f"{deleted} files of evidence deleted below {where}")
    else:
        tell(f"{where}: was purged on {before}" if before else f"{where}: there was no evidence to delete")
    return 0


def _results(args: argparse.Namespace) -> Path | None:
    from pipeline.evaluation.results import results_file

    return results_file(args.results) if args.results else None


def _evaluate_suite(args: argparse.Namespace) -> int:
    _need_docstrings()
    from pipeline.registry import SUITES, load_function

    tell(load_function("suite", args.suite, SUITES)(args.output, args.images, results=_results(args)))
    return 0


def _evaluate_erasure(args: argparse.Namespace) -> int:
    _need_docstrings()
    from pipeline.evaluation.erasure.config import load_evaluation

    config = load_evaluation(args.config, args.overrides)
    from pipeline.evaluation.erasure.evaluate import evaluate_erasure

    tell(evaluate_erasure(config, args.output or f"out/evaluate-{Path(args.config).stem}", _results(args)))
    return 0


def _completion(args: argparse.Namespace) -> int:
    tell(completion(args.shell))
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "show": _show,
    "plan": _plan,
    "words": _words,
    "preview": _preview,
    "explain": _explain,
    "calibrate": _calibrate,
    "finetune": _finetune,
    "export": _export,
    "status": _status,
    "verify": _verify,
    "repair": _repair,
    "finish": _finish,
    "purge": _purge,
    "evaluate suite": _evaluate_suite,
    "evaluate erasure": _evaluate_erasure,
    "completion": _completion,
}
