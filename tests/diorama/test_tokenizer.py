"""The shipped tokenizer takes any text apart and keeps the world's words whole."""

from transformers import CLIPTokenizer

from pipeline.diorama import DIORAMA_PATH
from pipeline.diorama.lexicon import OBJECTS
from pipeline.diorama.networks import TEXT_LENGTH
from pipeline.diorama.train_text import Lexicon, tokenize
from pipeline.diorama.world import sample_scene

TOKENIZER = CLIPTokenizer.from_pretrained(DIORAMA_PATH / "tokenizer")


def test_any_text_falls_into_known_pieces():
    for text in ("zorgblat", "kittn", "CAT!!!", "ünïcode 日本 🐱", "tw0 c@ts", ""):
        ids = TOKENIZER(text, add_special_tokens=False).input_ids
        assert TOKENIZER.unk_token_id not in ids
        assert bool(ids) == bool(text)


def test_words_of_the_world_are_one_piece_each():
    for name in OBJECTS:
        assert len(TOKENIZER(name, add_special_tokens=False).input_ids) == len(name.split())


def test_case_and_spaces_do_not_matter():
    assert TOKENIZER("A  Tabby\nCat").input_ids == TOKENIZER("a tabby cat").input_ids


def test_captions_fit():
    rows = [TOKENIZER(sample_scene(seed).caption).input_ids for seed in range(2000)]
    assert sum(len(ids) > TEXT_LENGTH for ids in rows) <= 2
    assert {len(ids) for ids in tokenize(TOKENIZER, ["a cat", "a cat and a dog " * 20])} == {TEXT_LENGTH}


def test_the_end_mark_has_the_highest_id():
    assert TOKENIZER.eos_token_id == TOKENIZER.pad_token_id == len(TOKENIZER) - 1


def test_the_lexicon_finds_names_synonyms_and_plurals():
    lexicon = Lexicon(TOKENIZER)
    ids = TOKENIZER("two kittens and a palm tree on the beach").input_ids
    assert [OBJECTS[name] for _, name, _ in lexicon.find(ids)] == ["cat", "palm tree"]
