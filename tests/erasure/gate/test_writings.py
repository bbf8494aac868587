"""Where tokenizers read two writings apart that the normal form makes one, or the other way, and what the gate does.

CLIP's is the diorama's (its class and rules: NFC, lower case, bytes); T5's one of its class with few words, which knows
case, no normalisation and no other script: all such text is unknown, and read alike. (The vocabulary that T5 ships
folds full-width letters and ligatures too, by NFKC.)
"""

import pytest
import torch

from pipeline.concepts.concept import Concept
from pipeline.concepts.normal import normal
from pipeline.config.schema import ModelConfig
from pipeline.erasure.gate.text import TextGate
from pipeline.models.load import Model, load_model
from tests.tiny_families import t5_tokenizer

# A listed word, another writing, and whether the normal form, CLIP and T5 read them as one.
WRITINGS = [
    ("palm tree", "palm\u00a0tree", True, True, True),
    ("palm tree", "palm  tree", True, True, True),
    ("cat", "Cat", True, True, False),
    ("café", "cafe\u0301", True, True, False),
    ("café", "CAFÉ", True, True, False),
    ("кот", "КОТ", True, True, True),
    ("cat", "ｃａｔ", True, False, False),
    ("cat", "c\u00adat", True, False, False),
    ("cat", "c\u200bat", True, False, False),
    ("cat", "c̶a̶t̶", True, False, False),
    ("palm tree", "palm-tree", True, False, False),
    ("palm tree", "palm_tree", True, False, False),
    ("AK-47", "AK47", True, False, False),
    ("AK-47", "AK\u201147", True, False, False),
    ("AK-47", "AK-٤٧", True, False, False),
    ("Munch's", "Munch’s", True, False, False),
    ("straße", "strasse", True, False, False),
    ("σκύλος", "ΣΚΎΛΟΣ", True, False, True),
    ("fig", "ﬁg", True, False, False),
    ("ネコ", "ﾈｺ", True, False, True),
    ("قطة", "قِطّة", True, False, True),
    ("🐱", "🐱\ufe0f", True, False, True),
    ("猫", "狗", False, False, True),
    ("hot dog", "hotdog", False, False, False),
    ("rosé", "rose", False, False, False),
]


@pytest.fixture(scope="module")
def diorama() -> Model:
    return load_model(ModelConfig(path="diorama"), torch.device("cpu"))


@pytest.fixture(scope="module")
def gate(diorama) -> TextGate:
    return TextGate(diorama.family, [Concept(name=word) for word in dict.fromkeys(word for word, *_ in WRITINGS)])


@pytest.mark.parametrize(("word", "writing", "one", "clip", "t5"), WRITINGS)
def test_the_gate_follows_the_normal_form_whatever_a_tokenizer_reads(diorama, gate, word, writing, one, clip, t5):
    assert (normal(word) == normal(writing)) is one
    tokenizers = (diorama.pipe.tokenizer, t5_tokenizer())
    read = [tokenizer(word).input_ids == tokenizer(writing).input_ids for tokenizer in tokenizers]
    assert read == [clip, t5]
    named = [hit.concept.name for hit in gate.hits(f"x {writing}, x") if hit.score == 1]
    assert (word in named) is one
