"""The auditor: thresholds, anchors, and refusals."""

import sys

import numpy as np
import pytest

from pipeline.audit.auditor import Auditor
from pipeline.audit.detector import Detector, load_detector
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
    (tmp_path / "my_detector.py").write_text(
        "from pipeline.audit.detector import Detector\n"
        "class Mine(Detector):\n"
        "    def __init__(self, device, level=1): self.level = level\n"
        "    def knows(self, term): return True\n"
        "    def threshold(self, term): return 0.5\n"
        "    def score(self, images, terms): raise AssertionError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_detector(AuditConfig(detector="my_detector:Mine", options={"level": 3}), "cpu").level == 3
    with pytest.raises(ConfigError, match=r"audit.options: .*'levle'"):
        load_detector(AuditConfig(detector="my_detector:Mine", options={"levle": 3}), "cpu")
    with pytest.raises(ConfigError, match="has no class 'Yours'"):
        load_detector(AuditConfig(detector="my_detector:Yours"), "cpu")
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
    with pytest.raises(ConfigError, match=r"audit.options: .*'levle'"):
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
