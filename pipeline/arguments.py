"""The words of the `lacuna` command: subcommands, arguments, options, their help. Imports nothing that takes time."""

import argparse
import math
from collections.abc import Sequence

from pipeline import __version__
from pipeline.errors import LacunaError
from pipeline.evaluation.words.budget import Budget
from pipeline.registry import SUITES

SHELLS = ("bash", "zsh", "fish")
CONFIG_HELP = "a YAML file, such as configs/quickstart.yaml; its keys are in pipeline/config/schema.py and sections/"
OVERRIDES_HELP = "settings in place of the file's, such as seed=1 output.path=out/mine"
RESULTS_HELP = "write what was found there as JSON, for the tables of the READMEs (make tables)"
FILES = ("config", "path", "folder", "pictures", "output", "page", "results", "write")  # arguments that name files


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; ``command`` is the name of the one that was given."""
    parser = argparse.ArgumentParser(
        prog="lacuna",
        description="Generate text-to-image corpora with concepts erased from the model, and report what is left.",
    )
    parser.add_argument("--version", action="version", version=f"lacuna {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def with_config(name: str, help: str, positional: dict[str, str] | None = None) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
        command.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
        for dest, metavar in (positional or {}).items():
            command.add_argument(dest, metavar=metavar)
        command.add_argument(
            "overrides",
            metavar="KEY=VALUE",
            nargs="*",
            default=[],  # argparse would call it required else
            help=OVERRIDES_HELP,
        )
        command.set_defaults(command=name)
        return command

    def with_corpus(name: str, help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
        command.add_argument("path", metavar="PATH", help="a corpus: a folder or an s3://, gs:// or az:// URL")
        command.add_argument(
            "--storage",
            metavar="KEY=VALUE",
            action="append",
            default=[],
            help="an option of the object store, such as endpoint=http://localhost:9000",
        )
        command.set_defaults(command=name)
        return command

    run = with_config("run", "generate the corpus, or go on with one that was interrupted")
    run.add_argument(
        "--accept-environment",
        action="store_true",
        help="go on in another environment (device, torch, threads) than the corpus was begun in; it is recorded",
    )
    with_config("show", "print the resolved config and the identity of its corpus")
    plan = with_config("plan", "dry run: what would be generated, its size, time and cost")
    plan.add_argument("--no-measure", action="store_true", help="do not generate a batch to estimate time and bytes")
    plan.add_argument("--price", type=_price, metavar="X", help="price of one worker per hour, for the cost")
    words = with_config("words", "show which words the erasure list acts on, and what a dictionary knows beside them")
    words.add_argument(
        "--prove",
        nargs="?",
        const="near",
        choices=("near", "all"),
        help="have the unerased model draw words and the detector look: those near to the concepts, or all of the "
        "vocabulary; what was drawn before is not drawn again",
    )
    words.add_argument(
        "--budget",
        type=_budget,
        metavar="N|Nh",
        help="draw at most N pictures, or what takes N worker-hours (2h), of what comes nearest first",
    )
    words.add_argument("--price", type=_price, metavar="X", help="price of one worker per hour, for --prove's cost")
    words.add_argument(
        "--page",
        nargs="?",
        const="",
        metavar="FILE",
        help="serve a page on 127.0.0.1 that shows candidates, dictionary, pictures and what became of each word, and, "
        "with --write, lets you move words and save the list; or write one that stands still to FILE",
    )
    words.add_argument(
        "--write", metavar="LIST", help="write what --prove found, or what you save on the page, as an erasure list"
    )
    words.add_argument("--json", action="store_true", help="print it as JSON, for programs")
    preview = with_config("preview", "draw erased beside unerased pictures of this config as one page")
    preview.add_argument("-n", "--images", type=_positive, default=16, help="how many prompts to draw (default 16)")
    preview.add_argument("-o", "--output", metavar="FILE", help="the page (default: preview.html in the evidence)")
    calibrate = with_config(
        "calibrate",
        "set the thresholds of the audit's detectors on labelled pictures, and measure how often they err",
        positional={"pictures": "PICTURES"},
    )
    calibrate.add_argument(
        "--false-alarms", type=_rate, default=0.01, metavar="X", help="share of pictures without it (default .01)"
    )
    calibrate.add_argument(
        "-o", "--output", metavar="FILE", default="calibration.json", help="for `calibration:` (calibration.json)"
    )
    calibrate.add_argument("--page", metavar="FILE", help="curves, as one page")
    finetune = with_config(
        "finetune",
        "train the steps of the recipe that have to be trained (esd), once, into the folder erasure.finetuned; "
        "killed and given again, it goes on; afterwards any run of a config with the same model, concepts and "
        "options uses the result",
    )
    finetune.add_argument(
        "--checkpoint-every", type=_positive, default=25, metavar="N", help="iterations between checkpoints (25)"
    )

    export = with_config(
        "export",
        "write the model with the recipe's edits folded in as a diffusers folder, for any tool's from_pretrained",
        positional={"folder": "DIR"},
    )
    export.add_argument(
        "--edits-only",
        action="store_true",
        help="export even where steps of the recipe act while sampling, which no folder can hold; they are left out",
    )

    help = "draw what the recipe makes of one prompt, as one page"
    explain = commands.add_parser("explain", help=help, description=f"{help[0].upper()}{help[1:]}.")
    explain.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
    explain.add_argument("prompt", metavar="PROMPT", help="any prompt, such as 'a cat and a tiger on the beach'")
    explain.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        default=[],
        help=OVERRIDES_HELP,
    )
    explain.add_argument("-o", "--output", metavar="FILE", help="the page (default: explain.html in the evidence)")
    explain.set_defaults(command="explain")

    with_corpus("status", "progress, yield and failures, read from storage alone")
    with_corpus("verify", "re-read every file of a corpus and say what is wrong with it, a line each")
    help = (
        "draw again what is damaged or missing of a corpus, put back only what comes out as it was committed, and go "
        "on with what is not committed"
    )
    repair = commands.add_parser("repair", help=help, description=help)
    repair.add_argument(
        "what",
        metavar="CONFIG|PATH",
        help="a YAML file, or the corpus, where prompts and model still are where they were",
    )
    repair.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", default=[], help="overrides of a CONFIG, such as output.path=..."
    )
    repair.add_argument("--storage", metavar="KEY=VALUE", action="append", default=[], help="an option of PATH's store")
    repair.add_argument(
        "--accept-environment", action="store_true", help="try it in another environment than the shard was drawn in"
    )
    repair.set_defaults(command="repair")
    with_corpus("finish", "derive card, indexes and report anew from commits and manifests")
    with_corpus("purge", "delete the evidence (quarantined and unerased pictures); manifests keep the record")

    evaluate = commands.add_parser("evaluate", help="measure the built-in model or an erasure")
    what = evaluate.add_subparsers(required=True, metavar="WHAT")
    for name in SUITES:
        suite = what.add_parser(name, help="score the built-in model and its detectors")
        suite.add_argument("-o", "--output", default=f"out/evaluate-{name}", help="folder of the scores and the card")
        suite.add_argument(
            "-n", "--images", type=_positive, default=2000, help="pictures to generate in all (default 2000)"
        )
        suite.add_argument("--results", metavar="FILE", help=RESULTS_HELP)
        suite.set_defaults(command="evaluate suite", suite=name)
    help = "measure recipes against each other and the unerased model, judged by detector B; goes on where it stopped"
    erasure = what.add_parser("erasure", help=help, description=help)
    erasure.add_argument("config", metavar="CONFIG", help="a YAML file, such as configs/evaluation/quick.yaml")
    erasure.add_argument("overrides", metavar="KEY=VALUE", nargs="*", default=[], help="overrides, such as cell=20")
    erasure.add_argument("-o", "--output", metavar="DIR", help="the folder (default: out/evaluate-NAME of the config)")
    erasure.add_argument("--results", metavar="FILE", help=RESULTS_HELP)
    erasure.set_defaults(command="evaluate erasure")
    completion = commands.add_parser(
        "completion",
        help="print a script that completes this command's words",
        description="Print a script for your shell, with which it completes this command's words: "
        'eval "$(lacuna completion bash)" in ~/.bashrc, or for zsh, as _lacuna, in a folder of its $fpath.',
    )
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help=" or ".join(SHELLS))
    completion.set_defaults(command="completion")
    return parser


def storage_options(given: Sequence[str]) -> dict[str, str]:
    """Return what ``--storage`` was given as a mapping; ``LacunaError`` for what is no KEY=VALUE."""
    for option in given:
        if "=" not in option:
            raise LacunaError(f"--storage {option}: expected KEY=VALUE")
    return dict(option.split("=", 1) for option in given)


def completion(shell: str) -> str:
    """Return the script with which *shell*, one of ``SHELLS``, completes the command's words."""
    import shtab

    parser = build_parser()
    parsers = [parser]
    for one in parsers:  # which grows
        for action in one._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
            elif action.dest in FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate between 0 and 1")
    return rate


def _budget(text: str) -> Budget:
    try:
        return Budget.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no price of at least 0")
    return price
