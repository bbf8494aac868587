"""What each `lacuna` command does with its arguments.

Every one imports what it needs when it runs, so that `show`, `plan` and `status` do not wait for torch (but where an
`auto` makes it look for a GPU, or a recipe has steps that are checked against the model's family).
"""

import argparse

from pipeline.arguments import completion
from pipeline.commands import corpora, evaluations, models, runs, words
from pipeline.commands.shared import Commands
from pipeline.terminal import tell


def _completion(args: argparse.Namespace) -> int:
    tell(completion(args.shell))
    return 0


COMMANDS: Commands = {
    **runs.COMMANDS,
    **words.COMMANDS,
    **models.COMMANDS,
    **corpora.COMMANDS,
    **evaluations.COMMANDS,
    "completion": _completion,
}
