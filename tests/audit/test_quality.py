"""Measures together: their columns, what is pinned of them, and what a measure of one's own may not do."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.audit.measure import Measure, measure_class
from pipeline.audit.quality import Quality
from pipeline.config.sections.audit import QualityConfig
from pipeline.errors import ConfigError
from tests import tiny_eyes

HERE = __name__


class Told(Measure):
    """Fills the column ``told`` with what ``gives`` says, of the type that ``type_`` names."""

    def __init__(self, device: str, gives: Any = 1.0, type_: str = "float", name: str = "told"):
        super().__init__(device)
        self.gives, self.name = gives, name
        self.type = {"float": pa.float32(), "text": pa.string(), "list": pa.list_(pa.float32(), 2)}[type_]

    def columns(self) -> Mapping[str, pa.DataType]:
        return {self.name: self.type}

    def measure(self, images: np.ndarray, captions: Sequence[str]) -> Mapping[str, np.ndarray]:
        return {self.name: np.array([self.gives] * len(images))}


class Other(Told):
    pass


class Unfinished(Measure):
    def columns(self) -> Mapping[str, pa.DataType]:
        return {}


def quality(*measures: tuple[str, dict[str, Any]] | str) -> Quality:
    named = [(one, {}) if isinstance(one, str) else one for one in measures]
    found = Quality.load([QualityConfig(measure=name, options=options) for name, options in named], "cpu")
    assert found is not None
    return found


def look(found: Quality, images: np.ndarray, captions: Sequence[str] | None = None) -> list[Mapping[str, Any]]:
    with ThreadPoolExecutor(2) as threads:
        return found.look(images, captions or ["a cat"] * len(images), threads).result()


def test_where_nothing_is_asked_for_there_is_none():
    assert Quality.load([], "cpu") is None


def test_columns_of_all_come_in_the_order_of_the_config_and_a_picture_has_a_value_of_each():
    found = quality("sharpness", f"{HERE}:Told", "hash")
    assert found.schema.names == ["sharpness", "blankness", "told", "hash"]
    images = tiny_eyes.pictures(3, 48, 40)
    rows = look(found, images)
    assert [set(row) for row in rows] == [set(found.schema.names)] * 3
    for image, row in zip(images, rows, strict=True):
        assert row == look(found, image[None])[0]
    table = pa.table({f.name: pa.array([row[f.name] for row in rows], f.type) for f in found.schema})
    assert table["told"].to_pylist() == [1.0] * 3
    assert look(found, images[:0]) == []
    assert found.row_bytes == 4 + 4 + 4 + 8
    assert quality((f"{HERE}:Told", {"type_": "list"})).row_bytes == 8


def test_what_is_pinned_tells_columns_and_code_and_another_is_refused():
    found = quality("hash", (f"{HERE}:Told", {"type_": "list", "gives": [1.0, 2.0]}))
    ours, own = found.pinned()
    assert ours == {"name": "hash", "about": {}, "sha256": "", "columns": {"hash": "int64"}}
    assert own["columns"] == {"told": "fixed_size_list<item: float>[2]"}
    assert own["sha256"].startswith("sha256:"), "the file in which a class of one's own stands"
    found.check([ours, own])
    with pytest.raises(
        ConfigError, match=r"^audit\.quality\[1\]: .*Told is now another than .* weights and code: sha2"
    ):
        found.check([ours, {**own, "sha256": "sha256:1"}])
    with pytest.raises(ConfigError, match=r"about: \{'revision': 'a'\} -> none; put back what it had"):
        found.check([{**ours, "about": {"revision": "a"}}, own])


@pytest.mark.parametrize(
    ("measures", "reason"),
    [
        ([f"{HERE}:Told", f"{HERE}:Other"], r"^audit\.quality\[1\]: .*Other fills the column 'told', as .*Told does$"),
        ([(f"{HERE}:Told", {"name": "hash"}), "hash"], r"^audit\.quality\[1\]: hash fills the column 'hash', as"),
        (
            [(f"{HERE}:Told", {"type_": "text"})],
            r"the column 'told' is of string; expected a number, a truth or a fixed",
        ),
    ],
)
def test_columns_that_cannot_be_are_refused(measures, reason):
    with pytest.raises(ConfigError, match=reason):
        quality(*measures)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"gives": float("inf")}, r"Told\.measure gave told of shape \(2,\) or with infinities; expected \(2,\)"),
        ({"gives": [1.0, 2.0]}, r"gave told of shape \(2, 2\) .*; expected \(2,\), finite or NaN"),
        ({"gives": [1.0], "type_": "list"}, r"gave told of shape \(2, 1\) .*; expected \(2, 2\)"),
    ],
)
def test_values_that_are_not_as_announced_are_an_error(options, reason):
    with pytest.raises(ValueError, match=reason):
        look(quality((f"{HERE}:Told", options)), tiny_eyes.pictures(2, 16, 16))


class Failing(Told):
    def measure(self, images: np.ndarray, captions: Sequence[str]) -> Mapping[str, np.ndarray]:
        raise OverflowError


def test_what_a_measure_raises_names_its_key():
    with pytest.raises(OverflowError) as caught:
        look(quality(f"{HERE}:Told", (f"{HERE}:Failing", {"name": "more"})), tiny_eyes.pictures(2, 16, 16))
    assert caught.value.__notes__ == [f"audit.quality[1]: {HERE}:Failing.measure: OverflowError"]


def test_a_class_that_is_unfinished_or_no_measure_is_refused_by_its_key():
    for name, reason in (
        (
            f"{HERE}:Unfinished",
            r"^audit\.quality\[0\]\.measure: .*Unfinished does not define measure; expected columns",
        ),
        ("tests.eyes:Brightness", "is no subclass of pipeline.audit.measure.Measure"),
    ):
        with pytest.raises(ConfigError, match=reason):
            measure_class(QualityConfig(measure=name), "audit.quality[0]")
