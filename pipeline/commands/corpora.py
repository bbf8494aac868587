"""A corpus that was begun: `status`, `verify`, `repair`, `finish`, `purge`."""

import argparse
import contextlib
from pathlib import Path

from pipeline.arguments import storage_options
from pipeline.commands.shared import Commands
from pipeline.errors import LacunaError
from pipeline.terminal import ReaderGone, tell


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


COMMANDS: Commands = {
    "status": _status,
    "verify": _verify,
    "repair": _repair,
    "finish": _finish,
    "purge": _purge,
}
