"""What CEASE's gates are asked, and how the answers are counted."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "jobs" / "ablate_gates.py"


@pytest.fixture(scope="module")
def gates():
    spec = importlib.util.spec_from_file_location("ablate_gates", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_object_is_asked_for_and_prompts_ask_for_what_they_say(gates):
    prompts = gates.asking()
    assert {name for _, objects in prompts for name in objects} == set(gates.OBJECTS)
    pairs = [(text, objects) for text, objects in prompts if len(objects) == 2 and " and " in text]
    assert len(pairs) == 64
    assert all(name in text for text, objects in pairs for name in objects)
    unasked = [text for text, objects in prompts if not objects]
    assert len(unasked) == 20
    assert not [name for text in unasked for name in gates.OBJECTS if f"a {name} " in text]


def test_the_table_counts_each_kind_of_pair(gates):
    asked = np.array([[1, 1, 0, 0]], bool)
    seen = np.array([[1, 0, 1, 0]], bool)
    scores = {
        "words": np.array([[0.6, 0.4, 0.9, 0.8]]),
        "context": np.array([[0.3, 0.5, 0.1, 0.2]]),
        "attention": np.array([[0.1, 0.1, 0.1, 0.1]]),
    }
    rows = {
        line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:]
        for line in gates.table(gates.counted(asked, seen, scores)).splitlines()
    }
    assert rows["words (0.5)"] == ["1 of 1", "0 of 1", "1 of 1", "1 of 1", "0.60", "0.80"]
    assert rows["context (0.5)"] == ["0 of 1", "1 of 1", "0 of 1", "0 of 1", "0.30", "0.20"]
    assert rows["words and context"][:4] == ["1 of 1", "1 of 1", "1 of 1", "1 of 1"]
