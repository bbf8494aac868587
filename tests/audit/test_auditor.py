"""The auditor: thresholds, anchors, and refusals."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.audit.auditor import Auditor
from pipeline.audit.detector import Detector, Sight, detector_class, load_detector, weights_digest
from pipeline.audit.eye import Eye
from pipeline.audit.verdict import Judgement
from pipeline.cli import main
from pipeline.concepts.concept import Concept
from pipeline.config.sections.audit import AuditConfig, Combine, DetectorConfig, Role
from pipeline.errors import ConfigError


class Brightness(Detector):
    """A real, if simple, detector: sees "light" in bright pictures and "dark" in dark ones."""

    def __init__(self, device: str, cut: float = 0.5):
        self.cut = cut

    def knows(self, term):
        return term in ("light", "dark")

    def threshold(self, term):
        return self.cut

    def score(self, images, terms):
        light = images.mean(axis=(1, 2, 3)) / 255
        return np.stack([light if term == "light" else 1 - light for term in terms], axis=1).astype(np.float32)


WHITE, BLACK = np.full((1, 8, 8, 3), 255, np.uint8), np.zeros((1, 8, 8, 3), np.uint8)
GREY = np.full((1, 8, 8, 3), 102, np.uint8)  # 0.4
LIGHT = Concept(name="light", anchor="dark")
WHERE = "audit.detectors[0]"


def load(detector: str, **options) -> Detector:
    return load_detector(DetectorConfig(detector=detector, options=options), "cpu", WHERE)


def eye(detector: Detector, listed: Sequence[Concept] = (LIGHT,), name: str = "it", **config) -> Eye:
    return Eye(DetectorConfig(detector=name, **config), detector, listed, name, WHERE)


def auditor(detector: Detector, concepts: Sequence[Concept] = (LIGHT,), **config) -> Auditor:
    return Auditor([eye(detector, concepts, **config)], concepts)


class Failing(Brightness):
    """Raises where it is asked for *at*."""

    def __init__(self, at: str):
        super().__init__("cpu")
        self.at = at

    def _reach(self, name):
        if name == self.at:
            raise KeyError("broken")

    def knows(self, term):
        self._reach("knows")
        return super().knows(term)

    def threshold(self, term):
        self._reach("threshold")
        return super().threshold(term)

    def score(self, images, terms):
        self._reach("score")
        return super().score(images, terms)


@pytest.mark.parametrize("at", ["knows", "threshold", "score"])
def test_what_its_code_raises_keeps_its_traceback_and_names_its_key(at):
    with pytest.raises(KeyError) as caught:
        eye(Failing(at), name="my:Failing").see(WHITE)
    assert caught.traceback[-1].name == "_reach"
    assert caught.value.__notes__ == [f"{WHERE}: my:Failing: KeyError: 'broken'"]


class Ambiguous(Brightness):
    """Knows two things of one name."""

    def knows(self, term):
        if term in ("light", "crane"):
            raise ConfigError(f"options.senses: {term!r} means several things")
        return True


@pytest.mark.parametrize("listed", [LIGHT, Concept(name="dog", anchor="crane")])
def test_what_a_detector_refuses_to_be_asked_about_is_told_with_its_key(listed):
    with pytest.raises(ConfigError, match=r"^audit\.detectors\[0\]: options\.senses: '(light|crane)' means sev"):
        eye(Ambiguous("cpu"), [listed])


def test_verdict_names_what_is_at_or_over_the_threshold():
    verdicts = auditor(Brightness("cpu")).judge(np.concatenate([WHITE, BLACK]))
    assert [v.found for v in verdicts] == [("light",), ()]
    assert [v.anchors for v in verdicts] == [frozenset(), frozenset({"dark"})]
    assert verdicts[0].scores == {"light": 1.0}
    assert auditor(Brightness("cpu"), thresholds={"light": 0.4}).judge(GREY)[0].found == ("light",)


def test_a_concept_that_nobody_can_judge_is_refused_unless_that_is_said():
    cat = Concept(name="cat")
    with pytest.raises(ConfigError, match=r"^audit\.detectors: it cannot judge the concept 'cat'; add a detector that"):
        auditor(Brightness("cpu"), [LIGHT, cat])
    eyes = [eye(Brightness("cpu"), [LIGHT, cat])]
    assert Auditor(eyes, [LIGHT, cat], unjudged=["cat"]).unjudged == ("cat",)
    left = Auditor(eyes, [LIGHT, Concept(name="cat", audited=False)])
    assert (left.unjudged, left.judge(WHITE)[0].scores) == (("cat",), {"light": 1.0})
    with pytest.raises(ConfigError, match=r"^audit\.detectors\[0\]: it knows no concept that is to be judged"):
        Auditor([eye(Brightness("cpu"), [cat])], [cat], unjudged=["cat"])


def test_what_need_not_be_judged_is_judged_by_who_knows_it():
    assert Auditor([eye(Brightness("cpu"))], [LIGHT], unjudged=["light"]).unjudged == ()


def test_a_detector_is_held_to_the_concepts_that_it_is_given():
    both = [LIGHT, Concept(name="dark")]
    first, second = eye(Brightness("cpu"), both, "first", concepts=["light"]), eye(Brightness("cpu"), both, "second")
    judged = Auditor([first, second], both).judge(WHITE)[0].judged
    assert [(one.detector, one.concept) for one in judged] == [
        ("first", "light"), ("second", "light"), ("second", "dark")
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"^audit\.detectors\[0\]\.concepts: it cannot judge 'cat'"):
        eye(Brightness("cpu"), [LIGHT, Concept(name="cat")], concepts=["cat"])
    with pytest.raises(ConfigError, match=r"^audit\.detectors\[0\]\.thresholds\.cat: it does not judge it"):
        eye(Brightness("cpu"), [LIGHT, Concept(name="cat")], thresholds={"cat": 0.5})


class Dimmed(Brightness):
    """Sees half of the light, in the upper left quarter."""

    def see(self, images, terms):
        boxes = np.tile(np.float32([0, 0, 4, 4]), (len(images), len(terms), 1))
        boxes[images.mean(axis=(1, 2, 3)) == 0] = np.nan
        return Sight(self.score(images, terms) / 2, boxes)


@pytest.mark.parametrize(
    ("combine", "score", "found"),
    [(Combine.any, 0.4, ("light",)), (Combine.all, 0.2, ()), (Combine.mean, 0.3, ("light",))],
)
def test_judges_of_one_concept_decide_together(combine: Combine, score: float, found: tuple[str, ...]):
    eyes = [
        eye(Brightness("cpu"), name="a", thresholds={"light": 0.3}),
        eye(Dimmed("cpu"), name="b", thresholds={"light": 0.3}),
    ]
    (verdict,) = Auditor(eyes, [LIGHT], combine).judge(GREY)
    assert verdict.scores == pytest.approx({"light": score})
    assert verdict.found == found


def test_a_witness_is_recorded_and_decides_nothing():
    eyes = [eye(Dimmed("cpu"), name="judge"), eye(Brightness("cpu"), name="other", role=Role.witness)]
    (verdict,) = Auditor(eyes, [LIGHT]).judge(GREY)
    assert (verdict.found, verdict.anchors) == ((), frozenset())
    assert verdict.scores == pytest.approx({"light": 0.2})
    dim, plain = verdict.judged
    assert (dim.detector, dim.box, plain.detector, plain.box) == ("judge", (0.0, 0.0, 4.0, 4.0), "other", None)
    assert plain == Judgement(detector="other", concept="light", score=plain.score)
    assert plain.score == pytest.approx(0.4)
    with pytest.raises(ConfigError, match="a witness alone cannot judge the concept 'light'"):
        Auditor(eyes[1:], [LIGHT])


def test_where_a_term_has_no_place_there_is_no_box():
    assert Auditor([eye(Dimmed("cpu"))], [LIGHT]).judge(BLACK)[0].judged[0].box is None


def test_boxes_of_another_shape_are_a_fault():
    class Flat(Brightness):
        def see(self, images, terms):
            return Sight(self.score(images, terms), np.zeros((len(images), 4), np.float32))

    with pytest.raises(ValueError, match=r"boxes of shape \(1, 4\); expected \(1, 2, 4\)"):
        auditor(Flat("cpu")).judge(WHITE)


def test_detectors_of_one_name_are_told_apart():
    config = AuditConfig(detectors=[DetectorConfig(detector="diorama"), DetectorConfig(detector="diorama")])
    found = Auditor.load(config, [Concept(name="cat")], "cpu")
    assert [pinned["name"] for pinned in found.pinned()] == ["diorama", "diorama 2"]
    assert found.pinned()[0]["sha256"].startswith("sha256:")


def test_an_unknown_anchor_is_no_error():
    assert auditor(Brightness("cpu"), [Concept(name="light", anchor="dog")]).anchors == ()


def test_a_detector_that_gives_nan_is_a_fault_and_not_a_clean_picture():
    class Broken(Brightness):
        def score(self, images, terms):
            return np.full((len(images), len(terms)), np.nan, np.float32)

    with pytest.raises(ValueError, match="not finite"):
        auditor(Broken("cpu")).judge(WHITE)


class Told(Brightness):
    """Tells what it is."""

    licence = "MIT"
    revision = "1"

    def about(self):
        return {"model": "of brightness", "revision": self.revision, **super().about()}


def test_what_a_detector_tells_of_itself_is_pinned_and_another_is_refused():
    pinned = auditor(Told("cpu")).pinned()
    assert pinned[0]["about"] == {"model": "of brightness", "revision": "1", "licence": "MIT"}
    auditor(Told("cpu")).check(pinned)
    other = Told("cpu")
    other.revision = "2"
    with pytest.raises(ConfigError, match=r"^audit\.detectors\[0\]: it is now another: about: .*'1'.* -> .*'2'.*; put"):
        auditor(other).check(pinned)


def test_user_detectors_load_by_module_and_class(tmp_path, monkeypatch):
    (tmp_path / "eye_with_a_level.py").write_text(
        "from pipeline.audit.detector import Detector\n"
        "class Mine(Detector):\n"
        "    def __init__(self, device, level=1): self.level = level\n"
        "    def knows(self, term): return True\n"
        "    def threshold(self, term): return 0.5\n"
        "    def score(self, images, terms): raise AssertionError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load("eye_with_a_level:Mine", level=3).level == 3
    with pytest.raises(
        ConfigError,
        match=r"options\.levle: eye_with_a_level:Mine has no .*did you mean 'level'",
    ):
        load("eye_with_a_level:Mine", levle=3)
    with pytest.raises(ConfigError, match="has no class 'Yours'"):
        load("eye_with_a_level:Yours")
    with pytest.raises(ConfigError, match="no module 'no_such_module'"):
        load("no_such_module:X")
    with pytest.raises(ConfigError, match="did you mean 'diorama'"):
        load("dioramma")


def test_a_detector_of_three_methods_is_found_where_the_user_stands(tmp_path, monkeypatch):
    (tmp_path / "my_three_methods.py").write_text(
        "import numpy as np\n"
        "from pipeline.audit.detector import Detector\n"
        "class Red(Detector):\n"
        "    def knows(self, term): return True\n"
        "    def threshold(self, term): return 0.5\n"
        "    def score(self, images, terms):\n"
        "        red = images[..., :1].mean(axis=(1, 2), dtype=np.float32) / 255\n"
        "        return np.repeat(red, len(terms), axis=1)\n"
    )
    (tmp_path / "pipeline.py").write_text("raise AssertionError('this is no Lacuna')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    detector = load("my_three_methods:Red")
    assert (detector.device, auditor(detector).judge(WHITE)[0].scores) == ("cpu", {"light": 1.0})
    assert sys.path[-1] == str(tmp_path), "behind all that is installed"
    with pytest.raises(ConfigError, match=r"options\.levle: .* has no such option; it has none$"):
        load("my_three_methods:Red", levle=3)


class Unfinished(Detector):
    """Knows everything and judges nothing."""

    def knows(self, term):
        return True


def test_an_unfinished_detector_is_told_what_it_lacks():
    named = f"{__name__}:Unfinished"
    with pytest.raises(
        ConfigError, match=r"audit\.detectors\[0\]\.detector: .*:Unfinished does not define score, threshold; expected "
    ):
        load(named)


class Typed(Detector):
    """Takes options of every kind."""

    def __init__(
        self,
        device: str,
        path: str,
        level: float = 0.5,
        labels: Mapping[str, Sequence[str]] | None = None,
        *,
        names: list[str] | None = None,
    ):
        self.given = (path, level, labels, names)

    def knows(self, term):
        return True

    def threshold(self, term):
        return 0.5

    def score(self, images, terms):
        raise AssertionError


class Open(Typed):
    """Takes whatever comes."""

    def __init__(self, device, level: int = 1, **others):
        self.given = (level, others)


TYPED, OPEN = f"{__name__}:Typed", f"{__name__}:Open"


def test_options_reach_a_detector_as_its_constructor_annotates_them():
    options = {"path": "w", "level": 1, "labels": {"a": ["b"]}, "names": ["x"]}
    path, level, labels, names = load(TYPED, **options).given
    assert (path, level, type(level), labels, names) == ("w", 1.0, float, {"a": ["b"]}, ["x"])
    assert load(OPEN, what=1, level=2).given == (
        2,
        {"what": 1},
    )


@pytest.mark.parametrize(
    ("detector", "options", "message"),
    [
        (
            TYPED,
            {"path": "w", "levl": 1},
            r"options\.levl: .*:Typed has no such option \(did you mean",
        ),
        (TYPED, {}, r"options\.path: is missing, and .*:Typed needs it$"),
        (
            TYPED,
            {"path": "w", "level": "high"},
            r"options\.level: Value 'high' .* could not be",
        ),
        (TYPED, {"path": "w", "names": 3}, r"options\.names: "),
        (
            OPEN,
            {"level": "x"},
            r"options\.level: Value 'x' .* could not be converted to Integer",
        ),
        ("diorama", {"lebel": 1}, r"options\.lebel: diorama has no such option; it has none$"),
        (
            "nudenet",
            {"lables": {}},
            r"options\.lables: nudenet has no such option \(did you mean 'labels'\?\)",
        ),
    ],
)
def test_options_that_a_detector_does_not_take_are_refused_before_it_is_made(detector, options, message):
    with pytest.raises(ConfigError, match=rf"^audit\.detectors\[0\]\.{message}") as caught:
        detector_class(DetectorConfig(detector=detector, options=options), WHERE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", [["show"], ["plan", "--no-measure"], ["run"]])
def test_a_command_refuses_them_in_a_line(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
    assert main([*command, str(config), "audit.detectors[0].options={levl: 1}", "cluster.backend=local"]) == 2
    assert (
        capsys.readouterr().err == "lacuna: audit.detectors[0].options.levl: diorama has no such option; it has none\n"
    )
    assert not list(tmp_path.iterdir())


class Weighted(Typed):
    """Has weights in files of its own."""

    def __init__(self, device: str, path: str = "", folder: str = "", word: str = ""):
        self.own = [name for name in ("a.bin", "b.bin") if Path(name).exists()]

    def files(self):
        return self.own


def test_the_weights_of_a_detector_are_known_by_their_bytes(tmp_path, monkeypatch):
    def digest(**options):
        return weights_digest(Weighted("cpu", **options), options)

    monkeypatch.chdir(tmp_path)
    code = digest()  # of the file in which the class stands alone
    assert code == digest(path="not there", word="photo")
    Path("a.bin").write_bytes(b"1")
    one = digest()
    assert one.startswith("sha256:")
    assert one != code
    assert len(one) == 71
    Path("b.bin").write_bytes(b"2")
    two = digest()
    Path("c.bin").write_bytes(b"3")
    Path("d/e").mkdir(parents=True)
    Path("d/e/f.bin").write_bytes(b"4")
    three, four = digest(path="c.bin"), digest(path="c.bin", folder="./d")
    assert len({one, two, three, four}) == 4
    assert digest(word="d") == two, "a word that is a folder's name by chance"
    assert digest(path="a.bin") == two, "each file counts once"
    Path("a.bin").symlink_to(Path("a.bin").rename("blob"))
    assert digest() == two, "a link has its own name, as in a hub's cache"
    Path("d/e/f.bin").write_bytes(b"5")
    assert digest(path="c.bin", folder="./d") != four
    Path("a.bin").write_bytes(b"6")  # through the link
    assert digest() != two
