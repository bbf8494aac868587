"""A budget is so many pictures, or what one worker draws in so many hours."""

import pytest

from pipeline.evaluation.words.budget import Budget


def test_pictures_and_hours() -> None:
    assert Budget.parse("5000").afford(0.5) == 5000
    assert Budget.parse("2h").afford(0.5) == 14_400
    assert Budget.parse("0.5h").afford(7) == 257


@pytest.mark.parametrize("text", ["", "0", "-3", "h", "0h", "-2h", "2 h", "1e3", "1.5", "2m", "nanh", "infh", "²"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is neither pictures, such as 5000, nor worker-hours, such as 2h"):
        Budget.parse(text)
