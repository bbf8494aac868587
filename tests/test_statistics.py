"""Wilson's interval agrees with published values and with its own limits."""

import pytest

from pipeline.statistics import wilson


@pytest.mark.parametrize(
    ("hits", "trials", "expected"),
    [  # Newcombe 1998 (Statist. Med. 17:857), table I
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_is_the_published_interval(hits, trials, expected):
    assert wilson(hits, trials) == pytest.approx(expected, abs=5e-5)


def test_wilson_is_exact_at_its_ends_and_refuses_what_cannot_be():
    assert wilson(0, 20)[0] == 0
    assert wilson(20, 20)[1] == 1
    assert wilson(0, 0) == (0, 1)
    with pytest.raises(ValueError, match="5 hits in 4"):
        wilson(5, 4)
