"""A concept to erase, as data: what it is called, what stands in its place, what must stay unharmed."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.concepts.term import Kind, Term


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One entry of an erasure list.

    ``anchor`` is the words that take its place (empty: nothing). ``preserve`` are neighbours to leave unharmed, and
    ``keep`` phrases that have one of its words in them and mean something else: "hot dog" of a dog.
    ``proven`` are words that nobody listed and whose pictures show the concept about as often as those of its name,
    ``implied`` words whose pictures show it now and then, ``ignore`` words that are to be neither, whatever they show:
    of these the gate alone knows.
    ``everywhere`` says that it has no place in a picture but is all over it, as a style is.
    ``kind`` and ``references``, pictures that show it, are for detectors; ``audited`` says whether any is to judge it.
    """

    name: str
    aliases: tuple[str, ...] = ()
    anchor: str = ""
    preserve: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    proven: tuple[str, ...] = ()
    implied: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    everywhere: bool = False
    kind: Kind = Kind.object
    references: tuple[Path, ...] = ()
    audited: bool = True

    @property
    def words(self) -> tuple[str, ...]:
        """The name and its aliases: every word by which a prompt may ask for the concept."""
        return (self.name, *self.aliases)

    @property
    def term(self) -> Term:
        """The concept as detectors are asked about it."""
        return Term(self.name, (*self.words, *self.proven), self.kind, self.references)

    @property
    def unharmed(self) -> tuple[str, ...]:
        """What must stay as it is: neighbours and excepted phrases."""
        return (*self.preserve, *self.keep)
