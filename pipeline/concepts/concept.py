"""A concept to erase, as data: what it is called, what stands in its place, what must stay unharmed."""

from dataclasses import dataclass

from pipeline.config.schema import ErasureConfig


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One entry of an erasure list.

    ``anchor`` is the words that take its place (empty: nothing). ``preserve`` are neighbours to leave unharmed.
    ``everywhere`` says that it has no place in a picture but is all over it, as a style is.
    """

    name: str
    aliases: tuple[str, ...] = ()
    anchor: str = ""
    preserve: tuple[str, ...] = ()
    everywhere: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The name and its aliases: every word by which a prompt may ask for the concept."""
        return (self.name, *self.aliases)


def concepts_of(erasure: ErasureConfig) -> tuple[Concept, ...]:
    """Return the erasure list of a loaded config, in which the files of ``lists`` are already merged."""
    return tuple(
        Concept(
            name=c.name,
            aliases=tuple(c.aliases),
            anchor=c.anchor,
            preserve=tuple(c.preserve),
            everywhere=c.everywhere,
        )
        for c in erasure.concepts
    )
