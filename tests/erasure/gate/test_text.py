"""The text gate: on the diorama, whose text encoder knows what its words mean, and with forced scores elsewhere."""

import pytest
import torch

from pipeline.concepts.concept import Concept
from pipeline.config.schema import ModelConfig
from pipeline.erasure.gate.calibration import OPENS
from pipeline.erasure.gate.context import Context
from pipeline.erasure.gate.text import Hit, TextGate, words_of
from pipeline.models.load import Model, load_model

CAT = Concept(name="cat", aliases=("kitten",), anchor="dog", preserve=("tiger", "lion", "dog"))
GUN = Concept(name="gun", aliases=("pistol",), preserve=("knife", "sword", "bomb"))


@pytest.fixture(scope="module")
def diorama() -> Model:
    return load_model(ModelConfig(path="diorama"), torch.device("cpu"))


@pytest.fixture(scope="module")
def gate(diorama) -> TextGate:
    return TextGate(diorama.family, [CAT, GUN])


def words(gate: TextGate, text: str) -> dict[str, str]:
    return {text[hit.start : hit.stop]: hit.concept.name for hit in gate.hits(text)}


def test_listed_words_count_one_in_any_number_and_case(gate):
    for text in ("a cat in the snow", "two CATS", "Kittens at sunset"):
        assert gate.scores(text) == [1.0, pytest.approx(0, abs=OPENS)]


@pytest.mark.parametrize("word", ["tabby", "kitty"])
def test_unlisted_synonyms_are_found_by_their_embedding(gate, word):
    assert words(gate, f"a sketch of a {word} and a tiger on the beach") == {word: "cat"}


@pytest.mark.parametrize("scene", ["robbery", "war"])  # a war shows a bomb as well, which is a listed neighbour
def test_scenes_that_imply_a_concept_are_found_even_beside_a_neighbour(gate, scene):
    assert words(gate, f"a {scene} in the desert") == {scene: "gun"}


@pytest.mark.parametrize(
    "text",
    [
        "a tiger and a lion in the snow",
        "a dog on the beach",
        "a knife, a sword and a bomb",
        "a beautiful zebra",
        "",
        "?!",
    ],
)
def test_neighbours_and_unrelated_words_leave_it_shut(gate, text):
    assert gate.hits(text) == []
    assert max(gate.scores(text)) < OPENS


def test_several_concepts_are_told_apart(gate):
    assert words(gate, "a kitten with a revolver and a tabby") == {"kitten": "cat", "revolver": "gun", "tabby": "cat"}


def test_a_word_may_imply_several_concepts_but_means_only_one(diorama):
    gate = TextGate(diorama.family, [Concept(name="bomb"), Concept(name="gun"), Concept(name="knife")])
    hits = gate.hits("a war in the desert")
    assert sorted(hit.concept.name for hit in hits) == ["bomb", "gun"]
    assert len({(hit.start, hit.stop) for hit in hits}) == 1
    (pistol,) = gate.hits("a revolver on the beach")
    assert pistol.concept.name == "gun"


def test_hits_lie_on_their_words_in_the_order_of_the_text(gate):
    text = "a tabby, two cats and a handgun"
    hits = gate.hits(text)
    assert [text[hit.start : hit.stop] for hit in hits] == ["tabby", "cats", "handgun"]
    assert [hit.score == 1 for hit in hits] == [False, True, False]


def test_a_phrase_is_found_by_its_telling_word(diorama):
    gate = TextGate(diorama.family, [Concept(name="wine", preserve=("beer", "coffee"))])
    assert list(words(gate, "a glass of red and a guitar")) == ["red"]


def test_a_listed_phrase_is_one_hit(diorama):
    gate = TextGate(diorama.family, [Concept(name="wine", aliases=("glass of red",))])
    text = "two glasses, a glass of red in a room"
    (hit,) = [hit for hit in gate.hits(text) if hit.score == 1]
    assert text[hit.start : hit.stop] == "glass of red"


def test_a_score_does_not_depend_on_what_was_asked_before(diorama, gate):
    fresh = TextGate(diorama.family, [CAT, GUN])
    for text in ("a kitty in the snow", "a war", "a bar with a dog"):
        assert fresh.scores(text) == gate.scores(text)


def near(diorama: Model, *texts: str) -> list[list[str]]:
    """The concepts that each of *texts* comes near as a whole."""
    context = Context(diorama.family, [CAT, GUN])
    embeds = diorama.family.encode(texts).embeds
    scores = [context.scores(text, own) for text, own in zip(texts, embeds, strict=True)]
    return [[name for name, score in zip(("cat", "gun"), row, strict=True) if score >= OPENS] for row in scores]


def test_a_prompt_comes_near_what_it_shows_as_a_whole(diorama):
    texts = ("a tabby on the beach", "a revolver in space", "a sketch of a robbery", "kittens")
    assert near(diorama, *texts) == [["cat"], ["gun"], ["gun"], ["cat"]]


def test_neighbours_unrelated_and_unknown_things_come_near_nothing(diorama):
    texts = ("a tiger and a lion", "a dog in the snow", "a bomb at sunset", "a knife", "a zebra", "a bus in a room", "")
    assert near(diorama, *texts) == [[]] * 7


def test_a_prompt_is_read_from_its_embeddings_whatever_its_words(diorama, gate):
    """As when an attack's words, none of which the gate knows, or its embeddings ask for the concept."""
    text, context = "a picture of burger lines", Context(diorama.family, [CAT, GUN])
    assert gate.hits(text) == []
    own, cat = diorama.family.encode([text, "a cat in the snow"]).embeds
    assert max(context.scores(text, own)) < OPENS <= context.scores(text, cat)[0]


def test_of_listed_words_that_overlap_the_longest_is_meant(diorama):
    rifle = Concept(name="rifle", aliases=("machine gun",))
    gate = TextGate(diorama.family, [Concept(name="gun"), rifle])
    assert words(gate, "a machine gun and a gun") == {"machine gun": "rifle", "gun": "gun"}
    assert [hit.start for hit in gate.hits("a machine gun and a gun")] == [2, 20]


WRITTEN = (
    "cat_ears",
    "a black_cat",
    "1cat",
    "kittens2",
    "photo_of_a_cat",
    "a ｃａｔ",
    "a c\u00adat",
    "a cat’s nap",
    "a (cat:1.3)",
)


@pytest.mark.parametrize("text", WRITTEN)
def test_a_listed_word_counts_one_however_it_is_written(gate, text):
    assert gate.scores(text)[0] == 1.0
    (hit,) = [hit for hit in gate.hits(text) if hit.score == 1]
    assert hit.concept is CAT


def test_a_plural_of_a_listed_word_is_told(gate):
    assert [hit.plural for hit in gate.hits("two cats and a kitten")] == [True, False]


def test_within_an_exception_no_word_comes_near_its_concept(diorama):
    listed = Concept(name="dog", keep=("hot dog", "puppy love"))
    gate = TextGate(diorama.family, [listed, Concept(name="cat")])
    for text in ("a hot dog on the beach", "two hot-dogs", "a hotdog", "puppy_love, snow"):
        assert gate.hits(text) == []
        assert gate.scores(text)[0] < OPENS
    assert gate.scores("puppy")[0] >= OPENS
    assert TextGate(diorama.family, [Concept(name="dog")]).scores("a hotdog")[0] >= OPENS, "by its spelling"
    assert gate.scores("a hot dog and a dog")[0] == 1.0
    assert words(gate, "a hot dog and a cat") == {"cat": "cat"}
    context = Context(diorama.family, [listed])
    text = "a hot dog"
    assert context.scores(text, diorama.family.encode([text]).embeds[0])[0] < OPENS


def test_proved_words_are_acted_on_and_ignored_ones_are_not(diorama: Model) -> None:
    guns = Concept(name="gun", proven=("zibble",), implied=("guitar",), ignore=("war",))
    beer = Concept(name="beer", implied=("guitar",))
    family = diorama.family
    gate = TextGate(family, [guns, beer])
    assert gate.hits("two zibbles by a war") == [Hit(guns, 4, 11, 1.0, plural=True, meant=True)]
    assert gate.hits("a guitar") == [Hit(guns, 2, 8, 1.0), Hit(beer, 2, 8, 1.0)], "implied, both of them"
    assert gate.scores("a guitar") == [1.0, 1.0]
    cats, drinks = Concept(name="cat", implied=("lager",)), Concept(name="beer")
    alone = TextGate(family, [drinks]).scores("a lager")
    assert TextGate(family, [cats, drinks]).scores("a lager") == [1.0, *alone], "what implies one may mean another"
    assert TextGate(family, [cats, drinks]).hits("a lager") == [
        Hit(cats, 2, 7, 1.0),
        Hit(drinks, 2, 7, alone[0], meant=True),
    ]
    excepted = Concept(name="gun", keep=("gun guitar",), implied=("guitar",), ignore=("guitar shop",))
    gate = TextGate(family, [excepted])
    assert gate.scores("a guitar") == [1.0]
    assert gate.scores("a gun guitar") == gate.scores("a guitar shop") == [0.0], "an exception, and an ignored phrase"
    assert TextGate(family, [Concept(name="gun")]).hits("a war") != [], "which comes near by itself"


def test_a_prompt_as_a_whole_is_judged_without_what_is_ignored(diorama: Model) -> None:
    def score(concept: Concept, text: str) -> float:
        return Context(diorama.family, [concept]).scores(text, diorama.family.encode([text]).embeds[0])[0]

    asked, ignoring = Concept(name="cat"), Concept(name="cat", ignore=("tomcat",))
    for text in ("a tomcat", "a photo of two tomcats on the beach"):
        assert score(asked, text) >= OPENS > score(ignoring, text)
    assert score(ignoring, "a tomcat and a wildcat") >= OPENS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("an AK-47 and m16, T‑34", {"AK-47": "ak-47", "m16": "m16", "T‑34": "t-34"}),
        ("8k, ak 47, --ar 16:9, 1920s", {}),
        ("tabby2 don't", {"tabby": "tabby", "don": "don"}),
        ("Ｔａｂｂｙ hand\u00adgun", {"Ｔａｂｂｙ": "tabby", "hand\u00adgun": "handgun"}),
        ("猫, 一只猫 ไทยแมว", {"猫": "猫", "一只猫": "一只猫", "ไทยแมว": "ไทยแมว"}),
        ("القط و кот я", {"القط": "القط", "و": "و", "кот": "кот"}),
        ("A cat with THE two hats, and without ones", {"cat": "cat", "hats": "hats", "ones": "ones"}),
        ("a_tabby-cat/?!", {"tabby": "tabby", "cat": "cat"}),
        ("", {}),
    ],
)
def test_words_are_asked_in_the_normal_form_whatever_their_script(text: str, words: dict[str, str]) -> None:
    assert {text[start:stop]: word for (start, stop), word in words_of(text).items()} == words


def test_function_words_open_no_gate_however_near_the_encoder_has_them(diorama: Model) -> None:
    """The diorama reads "land" as "l" and "and"."""
    bomb = Concept(name="bomb", aliases=("land mine",))
    crossbow = Concept(name="crossbow", aliases=("bow and arrow",))
    gate = TextGate(diorama.family, [bomb, crossbow])
    assert gate.hits("two dogs and a cat with a ball") == []
    assert {hit.concept.name for hit in gate.hits("a land mine, a bow and arrow")} == {"bomb", "crossbow"}


@pytest.mark.parametrize(
    ("text", "opened"),
    [
        ("a photo of the who on stage", {"the who": True}),
        ("all of us in a park", {"us": True}),
        ("a dog with a ball under a tree", {"with": True, "under": False}),
        ("a man who stands among others", {}),
        ("a DOWN jacket, a bird looks down", {"DOWN jacket": True}),
    ],
)
def test_function_words_that_are_listed_or_proved_open_it_all_the_same(
    diorama: Model, text: str, opened: dict[str, bool]
) -> None:
    band = Concept(name="The Who", aliases=("us", "down jacket"), proven=("with",), implied=("under",))
    hits = TextGate(diorama.family, [band]).hits(text)
    assert {text[hit.start : hit.stop]: hit.meant for hit in hits} == opened
    assert all(hit.score == 1 for hit in hits)
