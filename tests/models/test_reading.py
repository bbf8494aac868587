"""Long prompts in chunks, weights and breaks: what is read, and what comes out, against the schemes as published."""

import numpy as np
import pytest
import torch

from pipeline.config.schema import ModelConfig
from pipeline.config.sections.generation import GenerationConfig, LongPrompts, PromptSyntax
from pipeline.errors import ConfigError
from pipeline.generation.engine import Engine
from pipeline.models import emphasis
from pipeline.models.extent import Part
from pipeline.models.load import Model, load_model
from pipeline.models.reading import Reader, Reading, RowKind, check_reading
from tests import masked, tiny, tiny_families

ROOM = tiny.LENGTH - 2
LONG = ", ".join(["a photo of a cat and a dog on the beach"] * 4 + ["two people talking by a road at night"])
WEIGHTED = "a (cat:1.3) and ((a dog)) on [the beach] \\(snow\\) BREAK (a tree:0.5) at night"
CHUNKS, A1111 = Reading(LongPrompts.chunks), Reading(syntax=PromptSyntax.a1111)
BOTH = Reading(LongPrompts.chunks, PromptSyntax.a1111)


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def model(request: pytest.FixtureRequest) -> Model:
    path = tiny.path() if request.param == "sd" else tiny_families.path(request.param)
    return load_model(ModelConfig(path=path), torch.device("cpu"))


def encoded_by_hand(model: Model, chunks: list[list[tuple[str, float]]]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Texts with weights, a list a chunk, as the schemes have it: every piece is tokenized by itself, every chunk has a
    start, an end and padding, is encoded by itself, and each token's embedding times its weight; one after another."""
    pipe = model.pipe
    encoders = [(pipe.tokenizer, pipe.text_encoder)]
    if hasattr(pipe, "text_encoder_2"):
        encoders.append((pipe.tokenizer_2, pipe.text_encoder_2))
    sequences, pooled = [], None
    for chunk in chunks:
        sides = []
        for tokenizer, encoder in encoders:
            ids, weights = [tokenizer.bos_token_id], [1.0]
            for text, weight in chunk:
                own = tokenizer(text, add_special_tokens=False).input_ids
                ids, weights = ids + own, weights + [weight] * len(own)
            ids.append(tokenizer.eos_token_id)
            ids += [tokenizer.pad_token_id] * (tiny.LENGTH - len(ids))
            weights += [1.0] * (tiny.LENGTH - len(weights))
            with torch.no_grad():
                output = encoder(torch.tensor([ids]), output_hidden_states=True)
            hidden = output.hidden_states[-2] if len(encoders) == 2 else output.last_hidden_state
            sides.append(hidden[0] * torch.tensor(weights)[:, None])
        if len(encoders) == 2 and pooled is None:
            pooled = output.text_embeds[0]
        sequences.append(torch.cat(sides, dim=-1))
    return torch.cat(sequences), pooled


def test_a_long_prompt_is_encoded_as_published(model: Model) -> None:
    reader = Reader(model.family, CHUNKS)
    count = reader.chunks_of(LONG)
    tokens = model.pipe.tokenizer(LONG, add_special_tokens=False).input_ids
    assert count == -(-len(tokens) // ROOM) == 3
    spelt = [model.pipe.tokenizer.decode(tokens[i : i + ROOM]) for i in range(0, len(tokens), ROOM)]
    assert [model.pipe.tokenizer(text, add_special_tokens=False).input_ids for text in spelt] == [
        tokens[i : i + ROOM] for i in range(0, len(tokens), ROOM)
    ]  # so that the texts below spell the chunks
    ours = reader.filling(count).encode([LONG, "a cat"])
    embeds, pooled = encoded_by_hand(model, [[(text, 1.0)] for text in spelt])
    torch.testing.assert_close(ours.embeds[0], embeds, rtol=1e-5, atol=1e-5)
    filled, _ = encoded_by_hand(model, [[("a cat", 1.0)], [], []])
    torch.testing.assert_close(ours.embeds[1], filled, rtol=1e-5, atol=1e-5)
    if pooled is not None:
        assert ours.pooled is not None
        torch.testing.assert_close(ours.pooled[0], pooled, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reading", [A1111, BOTH])
def test_weights_and_breaks_are_encoded_as_published(model: Model, reading: Reading) -> None:
    reader = Reader(model.family, reading)
    assert reader.chunks_of(WEIGHTED) == 2
    first = [("a ", 1.0), ("cat", 1.3), (" and ", 1.0), ("a dog", 1.1**2), (" on ", 1.0), ("the beach", 1 / 1.1)]
    embeds, _ = encoded_by_hand(model, [[*first, (" (snow)", 1.0)], [("a tree", 0.5), (" at night", 1.0)]])
    ours = reader.filling(2).encode([WEIGHTED]).embeds[0]
    torch.testing.assert_close(ours, embeds, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reading", [CHUNKS, A1111, BOTH])
def test_short_prompts_without_syntax_are_encoded_as_ever_bit_for_bit(model: Model, reading: Reading) -> None:
    reader, texts = Reader(model.family, reading), ["a cat", "", "a red car, mountains"]
    assert [reader.chunks_of(text) for text in texts] == [1, 1, 1]
    for ours, plain in (
        (reader.encode(texts), model.family.encode(texts)),
        (reader.encode_negative(texts), model.family.encode_negative(texts)),
    ):
        assert torch.equal(ours.embeds, plain.embeds)
        assert (ours.pooled is None) == (plain.pooled is None)
        assert ours.pooled is None or plain.pooled is None or torch.equal(ours.pooled, plain.pooled)


def pictures(model: Model, prompts: list[tuple[str, str]], **generation: object) -> dict[str, np.ndarray]:
    config = tiny.config(model.path if hasattr(model, "path") else "unused")
    for key, value in generation.items():
        setattr(config.generation, key, value)
    samples = [tiny.sample(i, text, negative_prompt=negative) for i, (text, negative) in enumerate(prompts)]
    drawn = {}
    for batch in Engine(config, model, ()).generate(samples):
        assert batch.faults == [None] * len(batch.samples)
        drawn |= dict(zip((sample.prompt for sample in batch.samples), batch.images, strict=True))
    return drawn


def test_pictures_of_short_prompts_beside_long_ones_are_as_ever_and_long_ones_are_heard_to_their_end(
    model: Model,
) -> None:
    prompts = [("a cat", ""), (LONG, ""), ("a red car", LONG), ("a tree", "snow"), (LONG + " in the snow", "")]
    plain = pictures(model, prompts)
    read = pictures(model, prompts, long_prompts=LongPrompts.chunks, prompt_syntax=PromptSyntax.a1111)
    assert list(read) == ["a cat", "a tree", LONG, "a red car", LONG + " in the snow"], "few chunks first"
    for text in ("a cat", "a tree"):
        assert np.array_equal(read[text], plain[text])
    for text in (LONG, "a red car"):  # the latter's negative prompt is long
        assert not np.array_equal(read[text], plain[text])
    assert not np.array_equal(read[LONG], read[LONG + " in the snow"])


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a (cat:1.3) on", [[("a ", 1), ("cat", 1.3), (" on", 1)]]),
        ("((a) [b] \\(c\\) BREAK d", [[("a", 1.21), (" ", 1.1), ("b", 1), (" (c)", 1.1)], [("d", 1.1)]]),
        ("(a (b:2) c", [[("a ", 1.1), ("b", 2.2), (" c", 1.1)]]),
        ("[a (b] c)", [[("a ", 1 / 1.1), ("b", 1), (" c", 1.1)]]),
        ("x,BREAK y BREAKFAST", [[("x,", 1)], [("y BREAKFAST", 1)]]),
        ("BREAK a BREAK BREAK b BREAK", [[], [("a", 1)], [], [("b", 1)]]),
        ("a:1.3) b] \\\\ \\d", [[("a:1.3) b] \\ \\d", 1)]]),
        ("(a:1.2.3) (b : .5 ) ()", [[("a:1.2.3", 1.1), (" ", 1), ("b ", 0.5), (" ", 1)]]),
        ("(a:-1)(b:0)", [[("a", -1), ("b", 0)]]),
        ("((a:.001):.01) (b:10000000000000000000)", [[("a", 1e-5), (" ", 1), ("b", 1e19)]]),
        ("(a:NaN) (b:1e9)", [[("a:NaN", 1.1), (" ", 1), ("b:1e9", 1.1)]]),
        ("", [[]]),
    ],
)
def test_syntax_is_read_as_a1111_reads_it(prompt: str, parts: list[list[tuple[str, float]]]) -> None:
    read = emphasis.parse(prompt)
    assert [[(run.text, pytest.approx(run.weight)) for run in part] for part in read] == parts
    for run in (run for part in read for run in part):
        assert "".join(prompt[place] for place in run.places) == run.text
    again = emphasis.parse(emphasis.written(read))
    assert [[(run.text, pytest.approx(run.weight)) for run in part] for part in again] == parts


def test_what_is_not_read_is_told(model: Model) -> None:
    text = "a tree " * 10 + "by the catamaran and a kitten"  # 22 tokens are read, the 21st begins "catamaran"
    plain = Reader(model.family).extent(text)
    ids = model.pipe.tokenizer(text, add_special_tokens=False).input_ids
    assert (plain.read, plain.unread) == (ROOM, len(ids) - ROOM)
    assert text.startswith(plain.told)
    assert len(model.pipe.tokenizer(plain.told, add_special_tokens=False).input_ids) >= ROOM
    assert plain.whole == "a tree " * 10 + "by the"
    assert plain.said == (Part(plain.whole, cut=True),)
    assert plain.asked == (Part(text),)
    assert Reader(model.family, CHUNKS).extent(text) == (len(ids), 0, text, (Part(text),), (Part(text),))
    assert Reader(model.family).extent("a cat") == (2, 0, "a cat", (Part("a cat"),), (Part("a cat"),))
    weighed = "(" + "a tree " * 10 + "by the catamaran:1.3) BREAK a (dog:0.5)"
    told = Reader(model.family, A1111).extent(weighed)
    assert told.whole == "a tree " * 10 + plain.whole[70:] + ", a dog"
    assert [part.cut for part in told.said] == [True, False]
    assert [part.text for part in told.asked] == ["a tree " * 10 + "by the catamaran", "a dog"]
    (first, second) = emphasis.parse(told.told)
    assert [run.weight for run in first] == [1.3]
    assert [(run.text, run.weight) for run in second] == [("a ", 1.0), ("dog", 0.5)]


def test_a_character_of_which_the_beginning_alone_is_read_is_in_no_caption(model: Model) -> None:
    text = "a tree " * 10 + "by 🐱🐱"  # 21 tokens, then four of each cat
    read = Reader(model.family).extent(text)
    assert (read.read, read.unread) == (ROOM, 7)
    assert read.whole == "a tree " * 10 + "by "


def test_what_is_said_is_told_from_syntax(model: Model) -> None:
    reader, text = Reader(model.family, A1111), "a (hot:1.2) dog \\(or BREAK two"
    assert reader.said(text, 2, 15) == [(3, 6), (11, 15)]
    assert reader.said(text, 15, len(text)) == [(15, 16), (17, 20), (27, 30)]
    assert Reader(model.family).said(text, 2, 15) == [(2, 15)]


def test_what_weighs_nothing_is_told_of(model: Model) -> None:
    text = "a (red:-1) dog and ((a kitten:0)) BREAK [snow:0.0], a (tree:0.1)"
    read = Reader(model.family, A1111).extent(text)
    assert read.said == read.asked
    assert [part.text for part in read.said] == ["a red dog and a kitten", "snow:0.0, a tree"]
    assert [[part.text[slice(*span)] for span in part.silent] for part in read.said] == [["red", "a kitten"], []]
    plain = "a (cat:0)"
    assert Reader(model.family).extent(plain).said == (Part(plain),), "text, to an encoder that is told it as such"


@pytest.mark.parametrize("family", ["sd3", "flux", "sd3-without-t5"])
def test_the_encoder_that_reads_furthest_counts(family: str) -> None:
    read = load_model(ModelConfig(path=tiny_families.path(family)), torch.device("cpu")).family
    short = "a cat and a dog"
    assert Reader(read).extent(short) == (5, 0, short, (Part(short),), (Part(short),))
    long = "a dog and " * 8 + "a cat"  # 26 tokens; CLIP reads 22 here, T5 19
    told = Reader(read).extent(long)
    limit = max(stream.length - len(stream.tokenizer("").input_ids) for stream in read.streams)
    assert (told.read, told.unread) == (limit, 26 - limit)
    assert len(told.told.split()) == limit


def test_rows_kinds_and_weights_of_tokens_follow_the_chunks(model: Model) -> None:
    reader = Reader(model.family, BOTH).filling(3)
    text = "a dog BREAK a (cat:1.3)"
    start = text.index("cat")
    (rows,) = reader.rows(text, [(start, start + 3)])
    assert rows == [tiny.LENGTH + 2]
    assert reader.weights(text)[rows].tolist() == [pytest.approx(1.3)]
    assert reader.weights(text).sum().item() == pytest.approx(3 * tiny.LENGTH + 0.3)
    kinds = reader.kinds(text).view(3, tiny.LENGTH)
    assert kinds[:, 0].tolist() == [RowKind.start] * 3
    assert [(row == RowKind.word).sum().item() for row in kinds] == [2, 2, 0]
    assert [int((row == RowKind.end).nonzero()) for row in kinds] == [3, 3, 1]
    assert reader.words("a (hot:1.2) dog") == "a  hot      dog"
    assert reader.chunk_texts(text) == ["a dog", "a  cat", ""]


@pytest.mark.parametrize("family", ["sd3", "flux"])
@pytest.mark.parametrize("key", ["long_prompts", "prompt_syntax"])
def test_families_that_cannot_are_refused_in_a_line(family: str, key: str) -> None:
    generation = GenerationConfig(
        **{key: {"long_prompts": LongPrompts.chunks, "prompt_syntax": PromptSyntax.a1111}[key]}
    )
    read = load_model(ModelConfig(path=tiny_families.path(family)), torch.device("cpu")).family
    with pytest.raises(
        ConfigError, match=rf"^generation\.{key}: .* does not work on .*T5.*; expected (truncate|plain)$"
    ):
        check_reading(generation, type(read))


def test_a_family_whose_ids_are_not_encoded_as_its_texts_is_refused() -> None:
    with pytest.raises(ConfigError, match="its encode_ids does not give what its encode gives"):
        check_reading(GenerationConfig(long_prompts=LongPrompts.chunks), masked.load().family)
