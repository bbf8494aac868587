"""The rounds of a sweep, each a corpus that a run generates: first a few pictures of every word, then twice as many in
all of those words that are still open, up to eight times as many. Whatever is killed, the same command goes on."""

import math
from collections.abc import Callable, Sequence

from pipeline.config.schema import Config
from pipeline.evaluation.words.budget import Budget
from pipeline.evaluation.words.cache import WordCache
from pipeline.evaluation.words.judge import look_again
from pipeline.evaluation.words.questions import Question
from pipeline.evaluation.words.tally import Tally
from pipeline.evaluation.words.verdict import Table, looks
from pipeline.prompts import Plan, open_source
from pipeline.prompts.report import time_and_cost
from pipeline.run import run
from pipeline.session import resolve_device
from pipeline.workshop.preview import measure


class Drawing:
    """Draws *words*, in this order where *budget* ends it, and the names of those concepts of *cache* that somebody
    judges. What it will take is told by *say* before anything is drawn; *price* is of one worker per hour."""

    def __init__(
        self,
        cache: WordCache,
        words: Sequence[str],
        budget: Budget | None,
        price: float | None,
        say: Callable[[str], None],
    ):
        self.cache, self.words, self.budget, self.price, self.say = cache, words, budget, price, say
        self.tally = self._seen()
        self.looks = looks(cache.config.words.pictures)
        self.names = cache.judged_names
        self._place = {word: i for i, word in enumerate([*self.names, *words])}
        self._left: int | None = None  # pictures of the budget, once anything is missing
        self._told = False

    def rounds(self) -> int:
        """Draw round after round; return the exit code of the last run, 0 where nothing was left to draw."""
        still_open = list(self.words)
        for look in self.looks:
            asked = [Question(name, number) for name in self.names for number in range(self.looks[-1])]
            asked += [Question(word, number) for word in still_open for number in range(look)]
            while missing := self._within(asked):
                if exit_code := self._draw(missing):
                    return exit_code
            still_open = self.table().open_words(self.words)
        return 0

    def table(self) -> Table:
        return self.tally.table(self.words, len(self.looks))

    def unreached(self) -> list[str]:
        """Return the words of which nothing is drawn."""
        return [word for word in self.words if self.tally.missing([Question(word, 0)])]

    def undecided(self) -> list[str]:
        """Return the words that are drawn, and would be drawn on."""
        _, pictures = self.tally.counts(self.words)
        fewer = {word for word, number in zip(self.words, pictures[:, 0], strict=True) if number < self.looks[-1]}
        unreached = set(self.unreached())
        return [word for word in self.table().open_words(self.words) if word in fewer - unreached]

    def _within(self, asked: Sequence[Question]) -> list[Question]:
        """Return what is missing of *asked* and within the budget; the first time that is told."""
        missing = self.tally.missing(asked)
        if missing and not self._told:
            self._told = True
            self._tell(missing)
        if self._left is None:
            return missing
        return sorted(missing, key=lambda question: (self._place[question.word], question.number))[: self._left]

    def _draw(self, missing: Sequence[Question]) -> int:
        """Draw *missing*, or go on with a sweep that has some of it and that somebody left unfinished."""
        sweep, questions = self._left_over(missing) or (self.cache.sweep(missing), missing)
        outcome = run(sweep, accept_environment=True)  # what is counted are pictures, whoever drew them
        self.tally = self._seen()
        if outcome.exit_code:
            self.say(outcome.message)
        elif self._left is not None:
            self._left -= len(questions)
        return outcome.exit_code

    def _seen(self) -> Tally:
        """Count what is there, once the detector has looked for this list in what was drawn for others."""
        look_again(self.cache, resolve_device(self.cache.config.cluster.device), self.say)
        return self.cache.tally()

    def _left_over(self, missing: Sequence[Question]) -> tuple[Config, Sequence[Question]] | None:
        wanted = set(missing)
        for sweep, questions in self.cache.unfinished(self.tally):
            if not wanted.isdisjoint(questions) and (self._left is None or len(questions) <= self._left):
                return sweep, questions
        return None

    def _tell(self, missing: Sequence[Question]) -> None:
        """Say what a sweep will take, as a plan does, and reckon the budget in pictures."""
        config = self.cache.config
        sweep = self.cache.sweep(missing)
        measured = measure(sweep, Plan.build(sweep, open_source(sweep.prompts)))
        lines = [
            f"words     {len(self.words):,}, of which {len({q.word for q in missing}):,} lack pictures",
            f"pictures  {len(missing):,} in the first round; of words that stay open up to {self.looks[-1]} each",
        ]
        if measured is not None:
            workers = config.cluster.workers.max or config.cluster.workers.min
            lines += time_and_cost(measured, len(missing), workers, self.price)
        if self.budget is not None:
            self._left = self.budget.afford(measured.seconds_per_image if measured else math.inf)
            lines.append(f"budget    {self._left:,} pictures in all rounds, of what comes nearest first")
        for line in lines:
            self.say(line)
