"""What a model that answers in words is asked about a picture, and where in its answer yes and no stand."""

from collections.abc import Mapping, Sequence

from pipeline.concepts.term import Kind, Term
from pipeline.errors import ConfigError

QUESTIONS = {
    Kind.object: "Does this picture show {}?",
    Kind.policy: "Does this picture show {}?",
    Kind.style: "Is this picture in the style of {}?",
}
ANSWER = " Answer with yes or no, and nothing else."
_FIELD = "{}"


class Questions:
    """The question for each term: the user's own, by concept, or that of its kind, with all its words in it."""

    def __init__(self, detector: str, own: Mapping[str, str] | None):
        """*own* holds questions by concept, that yes is the answer to where it is seen. Raises ``ConfigError``."""
        if own is not None and not isinstance(own, Mapping):
            raise ConfigError(f"{detector}: questions: expected a question for each concept")
        for concept, question in (own or {}).items():
            if not isinstance(question, str) or not question.strip():
                raise ConfigError(f"{detector}: questions.{concept}: expected a question that yes or no answers")
        self.own = dict(own or {})

    def knows(self, term: Term) -> bool:
        """A name is no evidence of a face, so that who an identity is must be told in a question of the user's own."""
        return term in self.own or term.kind in QUESTIONS

    def of(self, term: Term) -> str:
        question = self.own.get(term) or QUESTIONS[term.kind].replace(_FIELD, " or ".join(term.words))
        return question.strip() + ANSWER


def answers(word: str) -> tuple[str, ...]:
    """Return how *word* ("yes") may be written at the beginning of an answer."""
    return tuple(f"{blank}{form}" for form in (word, word.capitalize(), word.upper()) for blank in ("", " "))


def share(yes: Sequence[float], no: Sequence[float]) -> float:
    """Return the probability of yes of those of all ways to write yes and no; 0.5 where neither has any."""
    total = sum(yes) + sum(no)
    return sum(yes) / total if total else 0.5
