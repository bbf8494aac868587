"""What the report says of quality: of how many pictures it is, and of which it is not."""

import numpy as np
import pytest

from pipeline.corpus.quality import HASH, Copies, Likeness
from pipeline.corpus.quality_page import alike_line, copies_line


def likeness(column: str, compared: int, limit: float) -> Likeness:
    return Likeness(column=column, compared=compared, near=3, limit=limit, nearest=np.zeros(compared), pairs=[])


@pytest.mark.parametrize(
    ("column", "limit", "near"),
    [(HASH, 6, "differs in at most 6 of 64 bits"), ("embedding", 0.95, "has a cosine of 0.95 or more")],
)
def test_of_a_corpus_of_which_some_are_compared_it_says_that_the_rest_is_not_looked_at(column, limit, near):
    whole = alike_line(likeness(column, 5_000, limit), 5_000)
    assert whole == f"Of 5,000 kept pictures 3 have another that {near}."
    some = alike_line(likeness(column, 8_192, limit), 1_000_000)
    assert some == (
        "Only 8,192 of 1,000,000 kept pictures, evenly spread, are compared with each other: what is nearly alike "
        f"among the rest, or between these and the rest, is not looked for. 3 of them have another among them that "
        f"{near}."
    )


def test_copies_are_of_all_kept_pictures():
    said = "Of 1,000,000 kept pictures 0 have the perceptual hash of an earlier one"
    assert copies_line(Copies(pictures=1_000_000, copies=0, most=1)) == f"{said}."
    assert copies_line(Copies(pictures=7, copies=4, most=3)).endswith("; 3 at most have the same.")
