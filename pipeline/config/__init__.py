"""From a YAML file to a typed, checked config, and from that to the identity of the corpus it makes."""

from pipeline.config.identity import SEMANTICS, Identity, identity, identity_difference, is_settled
from pipeline.config.load import load_config
from pipeline.config.public import to_public_dict, to_public_yaml
from pipeline.config.validate import validate_static

__all__ = [
    "SEMANTICS",
    "Identity",
    "identity",
    "identity_difference",
    "is_settled",
    "load_config",
    "to_public_dict",
    "to_public_yaml",
    "validate_static",
]
