"""What is drawn, measured or made of a config alone: `preview`, `explain`, `calibrate`, `finetune`, `export`."""

import argparse
from pathlib import Path

from pipeline.commands.shared import Commands, need_docstrings
from pipeline.settled import read_settled
from pipeline.terminal import tell


def _preview(args: argparse.Namespace) -> int:
    need_docstrings()
    from pipeline.workshop.preview import write_preview

    tell(write_preview(read_settled(args), args.images, args.output))
    return 0


def _explain(args: argparse.Namespace) -> int:
    need_docstrings()
    from pipeline.workshop.explain import write_explanation

    tell(write_explanation(read_settled(args), args.prompt, args.output))
    return 0


def _calibrate(args: argparse.Namespace) -> int:
    need_docstrings()
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
    need_docstrings()
    from pipeline.workshop.finetune import finetune

    for path in finetune(read_settled(args), args.checkpoint_every):
        tell(str(path))
    return 0


def _export(args: argparse.Namespace) -> int:
    need_docstrings()
    from pipeline.workshop.export import export

    tell(str(export(read_settled(args), args.folder, edits_only=args.edits_only)))
    return 0


COMMANDS: Commands = {
    "preview": _preview,
    "explain": _explain,
    "calibrate": _calibrate,
    "finetune": _finetune,
    "export": _export,
}
