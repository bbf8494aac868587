"""What is wrong with a config: the key it is about, and one line that says what was expected."""

from pipeline.errors import ConfigError


class Problem(ConfigError):
    """A ``ConfigError`` that knows its key path (``erasure.concepts[0].anchor``), so that a file can be put before it.

    ``key`` is empty where the whole file is at fault; ``file`` is given where it is not the config file itself.
    """

    def __init__(self, key: str, message: str, *, file: str | None = None):
        one_line = " ".join(message.split())
        super().__init__(f"{key}: {one_line}" if key else one_line)
        self.key = key
        self.message = one_line
        self.file = file


def under(path: str, key: object) -> str:
    """Join a key path and a key of the mapping there."""
    return f"{path}.{key}" if path else str(key)


def show(value: object, limit: int = 60) -> str:
    """Return *value* as a message shows it: short, on one line, in YAML's words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
