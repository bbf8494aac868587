"""A term is the name, and more for who asks."""

import pickle
from pathlib import Path

from pipeline.concepts.concept import Concept
from pipeline.concepts.term import Kind, Term


def test_a_term_is_its_name():
    term = Term("cat", ("cat", "kitten"), Kind.identity, (Path("a.png"),))
    assert (term, hash(term), {term: 1}["cat"]) == ("cat", hash("cat"), 1)
    assert (term.words, term.kind, term.references) == (("cat", "kitten"), Kind.identity, (Path("a.png"),))
    assert Term("cat").words == ("cat",)
    again = pickle.loads(pickle.dumps(term))
    assert (again, again.words, again.kind, again.references) == (term, term.words, term.kind, term.references)


def test_a_concept_asks_by_name_aliases_and_what_was_proved():
    cat = Concept(name="cat", aliases=("kitten",), proven=("tabby",), implied=("sofa",), references=(Path("a.png"),))
    assert cat.term == "cat"
    assert cat.term.words == ("cat", "kitten", "tabby")
    assert (cat.term.kind, cat.term.references) == (Kind.object, (Path("a.png"),))
