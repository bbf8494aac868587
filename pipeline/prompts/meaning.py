"""Which column of a source means what: the prompt, what steers its picture, and what passes on to the manifest."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipeline.config.prompts import STEERING
from pipeline.config.schema import PromptsConfig
from pipeline.errors import ConfigError, nearest


@dataclass(frozen=True)
class Meaning:
    """``steering``: what a column is (one of ``STEERING``) -> its name. ``passing``: the names of the columns that go
    on to the manifest, or None for all that do not steer. ``named``: by ``prompts.columns``, and not by their names;
    ``unsaid`` are then the names that would steer by themselves, of which it says nothing."""

    steering: dict[str, str]
    passing: tuple[str, ...] | None = None
    named: bool = False
    unsaid: tuple[str, ...] = ()

    @classmethod
    def of(cls, prompts: PromptsConfig) -> "Meaning":
        """Read ``prompts.columns``; without it each of ``STEERING`` is the column of that name."""
        if not prompts.columns:
            return cls({role: role for role in STEERING})
        given = {role: name for role in STEERING if isinstance(name := prompts.columns.get(role), str)}
        passing = prompts.columns.get("pass")
        listed = tuple(passing) if isinstance(passing, list) else None
        said = {*prompts.columns, *given.values(), *(listed or ())}
        unsaid = tuple(role for role in STEERING if role not in said)
        return cls({"prompt": "prompt", **given}, listed, named=True, unsaid=unsaid)

    @property
    def prompt(self) -> str:
        return self.steering["prompt"]

    def check_part(self, names: Sequence[str], where: str) -> None:
        """Raise ``ConfigError`` where one file of a source, *where*, has no column for the prompt, or two of a name."""
        if self.prompt not in names:
            raise ConfigError(
                f"prompts.columns.prompt: {where} has no column {self.prompt!r}{nearest(self.prompt, names)}; "
                f"it has {', '.join(names) or 'none'}"
            )
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            raise ConfigError(f"prompts.source: {where} has two columns of one name, {twice!r}")

    def check(self, names: Sequence[str], where: str) -> None:
        """Raise ``ConfigError`` for a column that the config names and that is not among *names*, all of a source."""
        has = f"it has {', '.join(names) or 'none'}"
        for role, name in self.steering.items():
            if name not in names and (self.named or role == "prompt"):
                raise ConfigError(
                    f"prompts.columns.{role}: {where} has no column {name!r}{nearest(name, names)}; {has}"
                )
        for i, name in enumerate(self.passing or ()):
            if name not in names:
                raise ConfigError(
                    f"prompts.columns.pass[{i}]: {where} has no column {name!r}{nearest(name, names)}; {has}"
                )

    def steers(self, names: Collection[str]) -> dict[str, str]:
        """Return those of ``steering`` that are among *names*."""
        return {role: name for role, name in self.steering.items() if name in names}

    def passes(self, name: str) -> bool:
        """Does this column go on to the manifest?"""
        return name not in self.steering.values() if self.passing is None else name in self.passing
