"""What holds of every setting of a config and of an erasure list."""

from dataclasses import is_dataclass
from typing import get_args, get_origin, get_type_hints

from pipeline.config.schema import Config, ErasureList
from pipeline.config.sections.declare import settings


def test_every_setting_of_the_schema_is_classed():
    """No leaf without a class, and no class by inheritance: adding a field means deciding."""
    seen = set()

    def walk(owner):
        seen.add(owner)
        hints = get_type_hints(owner)
        for f in settings(owner):
            hint = hints[f.name]
            inner = get_args(hint)[0] if get_origin(hint) is list else hint
            if is_dataclass(inner):
                walk(inner)
            # A section has no class of its own; a list of mappings has one, for when it is empty.
            assert isinstance(f.metadata.get("identity"), bool) != is_dataclass(hint), f"{owner.__name__}.{f.name}"

    walk(Config)
    walk(ErasureList)
    assert len(seen) == 16
