"""CEASE: what must stay bit-identical (on a tiny random model), and that it erases in its place (on the diorama)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.concepts.concept import Concept
from pipeline.config.options import read_options
from pipeline.config.schema import ModelConfig, StepConfig
from pipeline.config.sections.generation import GenerationConfig
from pipeline.diorama.detector import DioramaDetector
from pipeline.diorama.lexicon import OBJECTS
from pipeline.erasure.cease.method import CEASE
from pipeline.erasure.cease.options import CEASEOptions
from pipeline.erasure.gate.calibration import OPENS
from pipeline.erasure.method import Prompts, Sampling
from pipeline.erasure.recipe import compile_recipe
from pipeline.errors import ConfigError
from pipeline.generation.engine import Engine
from pipeline.generation.pixels import finish
from pipeline.generation.sampler import Sampler
from pipeline.generation.text import encode_texts
from pipeline.models.load import Model, load_model
from pipeline.statistics import rounded_down
from tests import masked, tiny
from tests.erasure.conftest import config, uce_step

CAT = Concept(name="cat", aliases=("kitten",), anchor="dog", preserve=("tiger", "lion", "dog"))
NOTHING = Concept(name="cat", aliases=("kitten",))
PROMPTS = ["a cat by a road", "a bowl of fruit", "two kittens at night", "the red car"]
CONCERNED = [0, 2]
LISTED = {"unlisted": False, "context": False}


def cease(model: Model, *concepts: Concept, **options) -> CEASE:
    # A random text encoder knows no synonyms: only listed words open the gate.
    return CEASE(model, concepts or (CAT,), CEASEOptions(**{**LISTED, **options}), label="cease")


def draw(model: Model, methods, prompts, seeds=None, guidance: float = 5.0, steps: int = 4) -> np.ndarray:
    settings = tiny.config(tiny.path())
    settings.generation.steps, settings.generation.guidance = steps, guidance
    settings.generation.batch_size = len(prompts)
    samples = [tiny.sample(i, p, seed=(seeds or range(100, 200))[i]) for i, p in enumerate(prompts)]
    (batch,) = Engine(settings, model, methods).generate(samples)
    return batch.images


@pytest.mark.parametrize("concept", [CAT, NOTHING], ids=["anchor", "no anchor"])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_ungated_samples_of_a_mixed_batch_are_bit_identical_and_gated_ones_change(model, concept, guidance):
    plain = draw(model, [], PROMPTS, guidance=guidance)
    steered = draw(model, [cease(model, concept)], PROMPTS, guidance=guidance)
    for i in range(4):
        assert (plain[i] == steered[i]).all() == (i not in CONCERNED), PROMPTS[i]


def test_a_batch_without_concerned_samples_is_bit_identical(model):
    prompts = ["a tree", "a bowl of fruit", "mountains at night", "the red car"]
    assert (draw(model, [], prompts) == draw(model, [cease(model)], prompts)).all()


@pytest.mark.parametrize("options", [{}, {"attention": 0.0}, {"always_on": True}])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_the_unet_runs_once_a_step_on_the_rows_of_the_unerased_model(model, guidance, options):
    method, rows = cease(model, **options), []
    hook = model.pipe.unet.register_forward_hook(lambda unet, given, made: rows.append(len(made[0])))
    try:
        draw(model, [method], PROMPTS, guidance=guidance, steps=5)
    finally:
        hook.remove()
    assert rows == [len(PROMPTS) * (2 if guidance > 1 else 1)] * 5


def test_a_sample_comes_out_the_same_at_another_position(model):
    order = [2, 1, 3, 0]
    one = draw(model, [cease(model)], PROMPTS, seeds=[1, 2, 3, 4])
    other = draw(model, [cease(model)], [PROMPTS[i] for i in order], seeds=[i + 1 for i in order])
    assert (one[order] == other).all()


def test_always_on_steers_every_prompt(model):
    plain, steered = draw(model, [], PROMPTS), draw(model, [cease(model, always_on=True)], PROMPTS)
    assert all((plain[i] != steered[i]).any() for i in range(4))


@pytest.mark.parametrize("options", [{"look": 0.0}, {"gather": 0.0}, {"look": 0.6, "gather": 0.1}])
def test_any_look_and_gather_work(model, options):
    changed = (draw(model, [], PROMPTS) != draw(model, [cease(model, **options)], PROMPTS)).any((1, 2, 3))
    assert changed.tolist() == [i in CONCERNED for i in range(4)]


@pytest.mark.parametrize(
    ("look", "steps", "acts"),
    [(0.15, 1, True), (0.15, 2, True), (0.5, 2, True), (0.51, 2, False), (2 / 3, 3, True), (0.67, 3, False),
     (1.0, 4, False), (1.0, 1, True)],
)  # fmt: skip
def test_a_look_is_refused_just_where_it_changes_nothing(model, look, steps, acts):
    plain, erased = (draw(model, methods, PROMPTS, steps=steps) for methods in ([], [cease(model, look=look)]))
    assert (plain != erased).any() == acts
    if acts:
        CEASE.check_sampling(CEASEOptions(look=look), GenerationConfig(steps=steps))
    else:
        with pytest.raises(
            ConfigError, match=rf"a look of {look:g} leaves none of the {steps} steps .* set options\.look"
        ):
            CEASE.check_sampling(CEASEOptions(look=look), GenerationConfig(steps=steps))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_what_is_everywhere_is_switched_all_over_the_picture_from_the_first_step(prediction):
    model = load_model(ModelConfig(path=tiny.path(prediction)), torch.device("cpu"))
    style = Concept(name="cat", anchor="dog", everywhere=True)
    steered = draw(model, [cease(model, style)], ["a cat by a road", "the red car"])
    anchored = draw(model, [], ["a dog by a road", "the red car"])
    assert np.abs(steered.astype(int) - anchored).max() <= 1
    assert (steered[0] != draw(model, [cease(model, CAT)], ["a cat by a road", "the red car"])[0]).any()


@pytest.mark.parametrize("options", [{}, {"attention": 0.0}], ids=["words", "heard"])
def test_where_tokens_are_masked_the_alternatives_own_are(options):
    model, style = masked.load(), Concept(name="cat", anchor="dog", everywhere=True)
    prompts = ["a cat by a road", "the red car"]
    steered, anchored = draw(model, [cease(model, style)], prompts), draw(model, [], ["a dog by a road", "the red car"])
    assert np.abs(steered.astype(int) - anchored).max() <= 1
    assert (steered[0] != draw(model, [], prompts)[0]).any()
    assert (draw(model, [cease(model, **options)], PROMPTS) != draw(model, [], PROMPTS)).any((1, 2, 3))[CONCERNED].all()


def test_what_has_a_place_is_not_touched_by_what_is_everywhere_in_another_sample(model):
    style = Concept(name="night", anchor="day", everywhere=True)
    both = draw(model, [cease(model, CAT, style)], ["a cat by a road", "the road at night"])
    alone = draw(model, [cease(model, CAT)], ["a cat by a road", "the road at night"])
    assert (both[0] == alone[0]).all()
    assert (both[1] != alone[1]).any()


def test_a_single_step_is_switched_everywhere(model):
    changed = draw(model, [], PROMPTS, steps=1) != draw(model, [cease(model)], PROMPTS, steps=1)
    assert changed.any((1, 2, 3)).tolist() == [i in CONCERNED for i in range(4)]


def test_gates_are_reported_for_every_sample_and_concept(model):
    dog = Concept(name="dog", anchor="tree")
    method = cease(model, NOTHING, dog)
    prompts = encode_texts(model.family, [(p, "") for p in ["a cat", "a dog and a cat", "a dog"]], [], True).batch(
        [("a cat", ""), ("a dog and a cat", ""), ("a dog", "")], torch.device("cpu")
    )
    _, gates = Sampler(model, [method]).sample(prompts, [1, 2, 3], 32, 32, 2, 5.0)
    assert [score == 1 for score in gates["cease:cat"].tolist()] == [True, True, False]
    assert [score == 1 for score in gates["cease:dog"].tolist()] == [False, True, True]


def test_several_concepts_are_each_replaced_by_their_own_anchor(model):
    method = cease(model, CAT, Concept(name="house", anchor="tree"))
    assert method.explain("two kittens and a house")[-1] == (
        "inside its place the picture listens to “two dogs and a tree”"
    )
    changed = draw(model, [method], ["a house", "a cat", "the red car"]) != draw(
        model, [], ["a house", "a cat", "the red car"]
    )
    assert changed.any((1, 2, 3)).tolist() == [True, True, False]


@pytest.mark.slow
def test_stacks_with_uce():
    steps = [uce_step(), StepConfig(method="cease", options=LISTED)]
    both, edit = config(*steps), config(steps[0])
    recipe = compile_recipe(both, load_model(both.model, torch.device("cpu")))
    images = {}
    for name, settings in (("both", both), ("edit", edit)):
        settings.generation.batch_size = len(PROMPTS)
        samples = [tiny.sample(i, p) for i, p in enumerate(PROMPTS)]
        engine = Engine.load(settings, recipe, "cpu")
        (batch,) = engine.generate(samples)
        images[name] = batch.images
    same = (images["both"] == images["edit"]).all((1, 2, 3))
    assert same.tolist() == [i not in CONCERNED for i in range(4)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": 0.5}, r"erasure.recipe\[0\].options.gate: is now false_alarms"),
        ({"context": 0.4}, "context"),
        ({"false_alarms": 1.5}, "false_alarms is 1.5; expected a share between 0 and 1"),
        ({"look": -0.1}, "look is -0.1; expected 0 to 1"),
        ({"attention": 2}, "attention is 2.0; expected 0 to 1"),
        ({"evidence": 0.37}, r"erasure.recipe\[0\].options.evidence: is now attention"),
        ({"thresholds": 0.5}, "did you mean 'threshold'"),
        ({"push": "far"}, "push"),
        ({"push": -1.0}, "push is -1.0; expected 0 or more"),
        ({"push": float("nan")}, "push is nan; expected 0 or more"),
    ],
)
def test_bad_options_give_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as error:
        read_options("erasure.recipe[0].options", "cease", CEASEOptions, options)
    assert "\n" not in str(error.value)


def test_a_word_that_tokenises_to_nothing_is_refused(model):
    with pytest.raises(ConfigError, match="tokenises to nothing"):
        cease(model, Concept(name=" "))


UNNAMED = ["a tree", "a bowl of fruit", "mountains at night", "the red car"]


def heard(model: Model, prompts: list[str], guidance: float = 5.0, **options) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of *prompts*, and how much of the cat each of them hears."""
    settings = tiny.config(tiny.path())
    settings.generation.guidance, settings.generation.batch_size = guidance, len(prompts)
    samples = [tiny.sample(i, prompt, seed=sum(map(ord, prompt))) for i, prompt in enumerate(prompts)]
    (batch,) = Engine(settings, model, [cease(model, **options)]).generate(samples)
    return batch.images, batch.gates["cease:cat heard"]


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_listening_alone_changes_no_bit_and_what_hears_enough_is_switched(model, guidance):
    plain, scores = heard(model, UNNAMED, guidance, attention=0.999)
    assert (plain == draw_seeded(model, UNNAMED, guidance)).all()
    threshold = float(np.sort(scores)[1:3].mean())  # between the second and the third
    steered, again = heard(model, UNNAMED, guidance, attention=threshold)
    assert (scores == again).all()
    assert ((plain != steered).any((1, 2, 3)) == (scores >= threshold)).all()


def draw_seeded(model: Model, prompts: list[str], guidance: float) -> np.ndarray:
    """The same pictures, unerased."""
    steps = tiny.config(tiny.path()).generation.steps
    return draw(model, [], prompts, [sum(map(ord, prompt)) for prompt in prompts], guidance, steps)


def test_what_is_heard_does_not_depend_on_the_place_in_the_batch(model):
    _, scores = heard(model, UNNAMED, attention=0.999)
    threshold = float(np.sort(scores)[1:3].mean())
    one, _ = heard(model, UNNAMED, attention=threshold)
    other, _ = heard(model, UNNAMED[::-1], attention=threshold)
    assert (one == other[::-1]).all()


def test_attention_joins_samples_that_words_have_gated(model):
    prompts = ["a cat by a road", *UNNAMED[:3]]
    plain, scores = heard(model, prompts, attention=0.999)
    threshold = float(np.sort(scores[1:])[-2:].mean())  # one of those without the word
    steered, _ = heard(model, prompts, attention=threshold)
    changed = (plain != steered).any((1, 2, 3))
    assert changed.tolist() == [False, *(scores[1:] >= threshold)]  # the first is gated, and steered, in both alike
    assert (plain[0] != draw_seeded(model, prompts, 5.0)[0]).any()


def test_a_single_step_leaves_nothing_to_hear(model):
    prompts = UNNAMED
    assert (draw(model, [], prompts, steps=1) == draw(model, [cease(model, attention=0.0)], prompts, steps=1)).all()


def test_what_was_found_out_before_further_steps_holds_in_a_shard_whatever_was_drawn_before(model, monkeypatch):
    monkeypatch.setattr("pipeline.erasure.cease.method.KNOWN", 8)
    sampling = Sampling(model.family.latent_shape(32, 32), 4, 5.0)

    def told(texts, further: float, *before) -> list[torch.Tensor]:
        method = cease(model, context=True)
        for others in before:
            method.condition(Prompts(tuple(others), ("",) * 3, model.family.encode(others), None))
        prompts = Prompts(tuple(texts), ("",) * 3, model.family.encode(texts), None)
        if not further:
            return list(method.steer(prompts, sampling).gates.values())
        method.condition(prompts)
        later = replace(prompts.positive, embeds=further * prompts.positive.embeds.flip(1))
        return list(method.steer(prompts.changed(positive=later), sampling).gates.values())

    others, texts = ["a tree", "a bowl of fruit", "mountains at night"], ["a cat by a road", "a cat", "the red car"]
    expected = told(texts, 0.0)
    assert all(map(torch.equal, told(texts, 2.0), expected))
    assert all(map(torch.equal, told(texts, 2.0, others), expected))
    assert all(map(torch.equal, told(texts, 2.0, PROMPTS[1:], others), expected))


def test_the_context_of_a_prompt_opens_the_gate_whatever_its_words(model):
    method = cease(model, context=True, false_alarms=0.05)
    embeds = model.family.encode(UNNAMED).embeds
    scores = np.array([method.context.scores(text, own)[0] for text, own in zip(UNNAMED, embeds, strict=True)])
    assert 0 < (scores >= OPENS).sum() < len(UNNAMED)
    told = [f"the prompt as a whole comes near cat ({rounded_down(score)})" for score in scores.tolist()]
    near = [method.explain(prompt)[0] == line for prompt, line in zip(UNNAMED, told, strict=True)]
    assert near == (scores >= OPENS).tolist()
    changed = (draw(model, [], UNNAMED) != draw(model, [method], UNNAMED)).any((1, 2, 3))
    assert changed.tolist() == near


@pytest.fixture(scope="module", params=["bicycle", "tiger"])
def scene(request):
    """Two-object scenes of the diorama, unerased and erased, and the masks of all steps; seeds that show both.

    Of seeds 0 to 11 with the tiger all 12 show both; erased, none shows a cat and all 12 show the tiger.
    """
    model = load_model(ModelConfig(path="diorama"), torch.device("cpu"))
    prompts = [f"a cat and a {request.param} on the beach"] * 6
    pairs = [(p, "") for p in prompts]
    texts = encode_texts(model.family, pairs, [], True).batch(pairs, torch.device("cpu"))
    masks = []
    keep = lambda step, steerings: masks.append([s.masks() for s in steerings])  # noqa: E731
    method = CEASE(model, [CAT], CEASEOptions(), label="cease")
    before, _ = Sampler(model, []).sample(texts, range(6), 64, 64, 8, 5.0)
    after, _ = Sampler(model, [method]).sample(texts, range(6), 64, 64, 8, 5.0, keep)
    detector = DioramaDetector.load("a")
    before, after = finish(before)[0], finish(after)[0]
    cat, other = OBJECTS.index("cat"), OBJECTS.index(request.param)
    shown = (detector.probabilities(before)[:, [cat, other]] >= 0.5).all(1)
    assert shown.sum() >= 4
    kept = detector.probabilities(after)[shown, other] >= 0.5
    return before, after, detector, cat, shown, kept, [step[0] for step in masks]


@pytest.mark.slow
def test_the_concept_goes_and_the_rest_of_the_scene_stays(scene):
    before, after, detector, cat, shown, kept, _ = scene
    assert not (detector.probabilities(after)[shown, cat] >= 0.5).any()
    assert kept.all()
    outside = detector.maps(before)[shown, cat] < 0.05  # (n, 8, 8)
    outside = outside.repeat_interleave(8, 1).repeat_interleave(8, 2)
    change = (before[shown].float() - after[shown].float()).abs().mean(-1)
    assert change[outside].mean() < 0.5 * change[~outside].mean()


@pytest.mark.slow
def test_the_mask_lies_on_the_concepts_place(scene):
    before, _, detector, cat, shown, _, masks = scene
    assert "looks" in masks[0]
    assert "switches" in masks[-1]
    mask = masks[-1]["switches"][shown]  # (n, 16, 16)
    place = torch.nn.functional.interpolate(detector.maps(before)[shown, cat][:, None], mask.shape[1:])[:, 0]
    inside = (mask * place).sum() / place.sum()
    outside = (mask * (1 - place)).sum() / (1 - place).sum()
    assert inside > 2 * outside


def test_attention_tells_unlisted_synonyms_and_implied_scenes_from_neighbours():
    """With no help from words or context; the neighbours' pictures stay as they were, bit for bit."""
    model = load_model(ModelConfig(path="diorama"), torch.device("cpu"))
    gun = Concept(name="gun", aliases=("pistol",), preserve=("knife", "sword", "bomb"))
    method = CEASE(model, [CAT, gun], CEASEOptions(**LISTED, attention=0.37), label="cease")
    prompts = ["a kitty in the snow", "a robbery in a room", "a revolver", "a tiger in the snow", "a bomb", "a bicycle"]
    pairs = [(p, "") for p in prompts]
    texts = encode_texts(model.family, pairs, [], True).batch(pairs, torch.device("cpu"))
    before, _ = Sampler(model, []).sample(texts, range(6), 64, 64, 3, 5.0)
    after, gates = Sampler(model, [method]).sample(texts, range(6), 64, 64, 3, 5.0)
    assert (gates["cease:cat heard"] >= 0.37).tolist() == [True] + [False] * 5
    assert (gates["cease:gun heard"] >= 0.37).tolist() == [False, True, True, False, False, False]
    assert (before != after).flatten(1).any(1).tolist() == [True] * 3 + [False] * 3


def test_explain_names_all_that_may_act(model):
    cat, house = Concept(name="cat", anchor="dog"), Concept(name="house")
    said = cease(model, cat, house, always_on=True, context=False, unlisted=False).explain("a cat by the sea")
    assert said[-1] == "inside its place the direction of house is taken from the prompt's embeddings"
    unnamed = "a red car"
    always, listening, closed = (
        cease(model, cat, context=False, unlisted=False, **options).explain(unnamed)[0]
        for options in ({"always_on": True}, {"attention": 0.4}, {})
    )
    assert always.endswith("switched all the same (always_on)")
    assert listening.endswith("left alone unless a concept is heard in the first step (attention 0.4)")
    assert closed.endswith("left alone, bit for bit")


def test_listening_needs_a_second_step():
    with pytest.raises(ConfigError, match="after the first of two steps"):
        CEASE.check_sampling(CEASEOptions(attention=0.4, look=0.0), GenerationConfig(steps=1))
    CEASE.check_sampling(CEASEOptions(attention=0.4), GenerationConfig(steps=2))
