"""The words that an erasure list acts on: `words`, its page, and its proof."""

import argparse
import contextlib
from dataclasses import replace
from pathlib import Path

from pipeline.commands.shared import Commands, need_docstrings, say
from pipeline.errors import LacunaError
from pipeline.settled import as_a_run_begins, read_settled_as_listed
from pipeline.terminal import columns, tell


def _words(args: argparse.Namespace) -> int:
    need_docstrings()
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
    proof = prove(config, everything=args.prove == "all", budget=args.budget, price=args.price, say=say)
    if args.write and not proof.exit_code:
        write_whole(Path(args.write), as_list(config, proof).encode())
    tell(json.dumps(proof.record(), ensure_ascii=False, indent=2) if args.json else proof.text(columns()))
    return proof.exit_code


COMMANDS: Commands = {
    "words": _words,
}
