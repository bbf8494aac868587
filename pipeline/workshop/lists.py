"""An erasure list as a file: YAML for ``erasure.lists``."""

from collections.abc import Sequence

import yaml

from pipeline.config.identity import plain
from pipeline.config.schema import ConceptConfig


def list_yaml(concepts: Sequence[ConceptConfig]) -> str:
    """Return *concepts* as the text of an erasure list, without what is as it is by default."""
    listed = []
    for concept in concepts:
        default = vars(ConceptConfig(name=concept.name))
        fields = {key: plain(value) for key, value in vars(concept).items() if value != default[key]}
        listed.append({"name": concept.name, **fields})
    return yaml.safe_dump({"concepts": listed}, sort_keys=False, allow_unicode=True, width=120)
