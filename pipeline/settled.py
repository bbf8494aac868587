"""The config of a command that does what a run does, or tells of it: read, checked, and settled as a run would begin.

As the commands do, each function imports what it needs when it is called.
"""

import argparse
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config.schema import Config


def read_settled(args: argparse.Namespace) -> "Config":
    """Read the config, refuse a recipe that its model cannot do, and settle what a run would, its words among it."""
    config, _ = as_a_run_begins(read_checked(args))
    return config


def read_settled_as_listed(args: argparse.Namespace) -> "Config":
    """Read the config likewise, with its concepts as they are listed."""
    from pipeline.corpus import open_store
    from pipeline.corpus.resume import follow
    from pipeline.models.settle import settle

    listed = read_checked(args)
    config = settle(follow(listed, open_store(listed.output.path, listed.output.storage_options)))
    return replace(config, erasure=listed.erasure)


def read_checked(args: argparse.Namespace) -> "Config":
    """Return the config as it is written; ``ConfigError`` where its model cannot do the recipe."""
    from pipeline.audit.compatibility import check_detectors
    from pipeline.config import load_config
    from pipeline.config.extras import check_extras_of_source
    from pipeline.erasure.compatibility import check_recipe

    config = load_config(args.config, args.overrides)
    check_recipe(config)
    check_detectors(config)
    check_extras_of_source(config)
    return config


def as_a_run_begins(config: "Config", *, here: bool = False) -> "tuple[Config, list[str]]":
    """Return *config* as the corpus at its output was begun, or as a run would begin it: without "auto" and with proved
    words, and a line on each of both that is news. With *here* no network is used, and what then is not settled has no
    words either."""
    from pipeline.config import is_settled
    from pipeline.corpus import open_store
    from pipeline.corpus.resume import follow
    from pipeline.erasure.compatibility import check_recipe_here
    from pipeline.evaluation.words.settle import with_proved_words
    from pipeline.models.compiling import Work
    from pipeline.models.settle import settle, settle_here

    store = open_store(config.output.path, config.output.storage_options)
    config = follow(config, store)
    lines: list[str] = []
    work = Work(partial(_pictures, config), check_recipe_here)
    config = (settle_here if here else settle)(config, work=work, say=lines.append)
    if not is_settled(config):
        return config, lines
    config, words = with_proved_words(config, store)
    return config, [*lines, *filter(None, [words])]


def _pictures(config: "Config") -> int:
    """Count what there is to draw."""
    from pipeline.prompts import count, open_source

    return count(config.prompts, open_source(config.prompts))
