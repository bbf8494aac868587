"""The auditor: thresholds, anchors, and refusals."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.audit.auditor import Auditor
from pipeline.audit.detector import Detector, detector_class, load_detector, weights_digest
from pipeline.cli import main
from pipeline.concepts.concept import Concept
from pipeline.config.schema import AuditConfig
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
LIGHT = Concept(name="light", anchor="dark")


def test_verdict_names_what_is_at_or_over_the_threshold():
    verdicts = Auditor(Brightness("cpu"), [LIGHT], {}).judge(np.concatenate([WHITE, BLACK]))
    assert [v.found for v in verdicts] == [("light",), ()]
    assert [v.anchors for v in verdicts] == [frozenset(), frozenset({"dark"})]
    assert verdicts[0].scores == {"light": 1.0}
    grey = np.full((1, 8, 8, 3), 102, np.uint8)  # 0.4
    assert Auditor(Brightness("cpu"), [LIGHT], {"light": 0.4}).judge(grey)[0].found == ("light",)


def test_a_concept_that_cannot_be_judged_is_refused():
    with pytest.raises(ConfigError, match="cannot judge the concept 'cat'"):
        Auditor(Brightness("cpu"), [Concept(name="cat")], {})


def test_an_unknown_anchor_is_no_error():
    assert Auditor(Brightness("cpu"), [Concept(name="light", anchor="dog")], {}).anchors == ()


def test_a_detector_that_gives_nan_is_a_fault_and_not_a_clean_picture():
    class Broken(Brightness):
        def score(self, images, terms):
            return np.full((len(images), len(terms)), np.nan, np.float32)

    with pytest.raises(ValueError, match="not finite"):
        Auditor(Broken("cpu"), [LIGHT], {}).judge(WHITE)


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
    assert load_detector(AuditConfig(detector="eye_with_a_level:Mine", options={"level": 3}), "cpu").level == 3
    with pytest.raises(
        ConfigError, match=r"^audit\.options\.levle: eye_with_a_level:Mine has no .*did you mean 'level'"
    ):
        load_detector(AuditConfig(detector="eye_with_a_level:Mine", options={"levle": 3}), "cpu")
    with pytest.raises(ConfigError, match="has no class 'Yours'"):
        load_detector(AuditConfig(detector="eye_with_a_level:Yours"), "cpu")
    with pytest.raises(ConfigError, match="no module 'no_such_module'"):
        load_detector(AuditConfig(detector="no_such_module:X"), "cpu")
    with pytest.raises(ConfigError, match="did you mean 'diorama'"):
        load_detector(AuditConfig(detector="dioramma"), "cpu")


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
    detector = load_detector(AuditConfig(detector="my_three_methods:Red"), "cpu")
    assert (detector.device, Auditor(detector, [LIGHT], {}).judge(WHITE)[0].scores) == ("cpu", {"light": 1.0})
    assert sys.path[-1] == str(tmp_path), "behind all that is installed"
    with pytest.raises(ConfigError, match=r"^audit\.options\.levle: .* has no such option; it has none$"):
        load_detector(AuditConfig(detector="my_three_methods:Red", options={"levle": 3}), "cpu")


class Unfinished(Detector):
    """Knows everything and judges nothing."""

    def knows(self, term):
        return True


def test_an_unfinished_detector_is_told_what_it_lacks():
    named = f"{__name__}:Unfinished"
    with pytest.raises(
        ConfigError, match=r"audit\.detector: .*:Unfinished does not define score, threshold; expected "
    ):
        load_detector(AuditConfig(detector=named), "cpu")


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
    path, level, labels, names = load_detector(AuditConfig(detector=TYPED, options=options), "cpu").given
    assert (path, level, type(level), labels, names) == ("w", 1.0, float, {"a": ["b"]}, ["x"])
    assert load_detector(AuditConfig(detector=OPEN, options={"what": 1, "level": 2}), "cpu").given == (2, {"what": 1})


@pytest.mark.parametrize(
    ("detector", "options", "message"),
    [
        (
            TYPED,
            {"path": "w", "levl": 1},
            r"^audit\.options\.levl: .*:Typed has no such option \(did you mean",
        ),
        (TYPED, {}, r"^audit\.options\.path: is missing, and .*:Typed needs it$"),
        (
            TYPED,
            {"path": "w", "level": "high"},
            r"^audit\.options\.level: Value 'high' .* could not be",
        ),
        (TYPED, {"path": "w", "names": 3}, r"^audit\.options\.names: "),
        (OPEN, {"level": "x"}, r"^audit\.options\.level: Value 'x' .* could not be converted to Integer"),
        ("diorama", {"lebel": 1}, r"^audit\.options\.lebel: diorama has no such option; it has none$"),
        ("nudenet", {"lables": {}}, r"^audit\.options\.lables: nudenet has no such option \(did you mean 'labels'\?\)"),
    ],
)
def test_options_that_a_detector_does_not_take_are_refused_before_it_is_made(detector, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        detector_class(AuditConfig(detector=detector, options=options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", [["show"], ["plan", "--no-measure"], ["run"]])
def test_a_command_refuses_them_in_a_line(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
    assert main([*command, str(config), "audit.options={levl: 1}", "cluster.backend=local"]) == 2
    assert capsys.readouterr().err == "lacuna: audit.options.levl: diorama has no such option; it has none\n"
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
    Path("d/e/f.bin").write_bytes(b"5")
    assert digest(path="c.bin", folder="./d") != four
    Path("a.bin").write_bytes(b"6")
    assert digest() != two


def test_detectors_that_come_with_lacuna_tell_their_weights():
    assert Auditor.load(AuditConfig(detector="diorama"), [Concept(name="cat")], "cpu").revision.startswith("sha256:")
