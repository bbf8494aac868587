"""Words in prompts and in their tokens."""

import pytest
import torch

from pipeline.config.schema import ModelConfig
from pipeline.erasure.tokens import end_of_text, replace_spans, token_spans, word_spans
from pipeline.models.load import load_model
from tests import tiny


@pytest.fixture(scope="module")
def stream():
    return load_model(ModelConfig(path=tiny.path()), torch.device("cpu")).family.streams[0]


def test_words_and_plurals_in_any_case():
    text = "Cats and a KITTEN by a category"
    assert [text[a:b] for a, b in word_spans(text, ["cat", "kitten"])] == ["Cats", "KITTEN"]


def test_token_spans_cover_the_words_and_nothing_else(stream):
    text = "two tigers, a Kitten by the house"
    spans = word_spans(text, ["tiger", "kitten", "house"])
    ids = stream.tokenizer(text).input_ids
    found = [
        "".join(stream.tokenizer.convert_ids_to_tokens(ids[r.start : r.stop])) for r in token_spans(stream, text, spans)
    ]
    assert [word.replace("</w>", "") for word in found] == ["tigers", "kitten", "house"]
    assert len(token_spans(stream, text, spans)[0]) > 1  # a word of several tokens


def test_what_truncation_cuts_off_has_no_tokens(stream):
    text = "a tree " * 20 + "cat"
    assert token_spans(stream, text, word_spans(text, ["cat"])) == [range(0)]
    assert end_of_text(stream, text) == tiny.LENGTH - 1


def test_end_of_text(stream):
    assert end_of_text(stream, "") == 1
    assert end_of_text(stream, "a cat") == 3


@pytest.mark.parametrize(
    ("words", "result", "spans"),
    [
        (["dog", "pup"], "a dog and the pup here", ["dog", "pup"]),
        (["", ""], " and  here", []),
        (["dog", ""], "a dog and  here", ["dog"]),
    ],
)
def test_replace_spans(words, result, spans):
    text, new = replace_spans("a cat and the kitten here", [(2, 5), (14, 20)], words)
    assert text == result
    assert [text[a:b] for a, b in new] == spans
