"""``run.yaml``: what was pinned when the run began. Written first, once, and only if absent; never changed after."""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import yaml

from pipeline.corpus import layout
from pipeline.corpus.stores import Store, create_or_read
from pipeline.errors import CorpusError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it

SCHEMAS = ("column_schema", "quality_schema")  # fields that are kept for people, and beside as Arrow's own bytes


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """``identity`` and ``digest`` name the corpus; ``config`` is the resolved config without secrets; ``recipe`` is
    ``CompiledRecipe.record``; ``column_schema`` are the pass-through columns of the manifests. ``lacuna`` is what
    ``pipeline.version`` told when it was begun, ``paths`` where what the config names by relative paths lay, by key,
    ``words`` which table of what words draw it took (``words.py``; empty: none) and which words of each concept it
    had from there, ``detectors`` what looked at its pictures (``Auditor.pinned``), and ``quality`` what measured them
    (``Quality.pinned``), into the columns ``quality_schema`` of the manifests; older corpora have less of it.
    ``format`` is the corpus's (see ``layout``), which it keeps: no part of the identity, because what is drawn does not
    depend on it."""

    digest: str
    identity: dict[str, Any]
    config: dict[str, Any]
    batch_size: int
    recipe: dict[str, Any]
    model_revision: str
    environment: dict[str, Any]
    samples: int
    shards: int
    samples_per_shard: int
    lacuna: dict[str, Any] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    detectors: list[dict[str, Any]] = field(default_factory=list)
    quality: list[dict[str, Any]] = field(default_factory=list)
    words: dict[str, Any] | None = None
    column_schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    quality_schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    format: int = layout.FORMAT

    def environment_difference(self, environment: Mapping[str, Any]) -> list[str]:
        """See the function of this name; the pinned one is that in which the run was begun."""
        return environment_difference(self.environment, environment)

    def dumps(self) -> bytes:
        values = asdict(self)
        for name in SCHEMAS:
            schema: pa.Schema = values[name]
            values[name] = {f.name: str(f.type) for f in schema}
            values[f"{name}_arrow"] = base64.b64encode(schema.serialize().to_pybytes()).decode()
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120).encode()

    @classmethod
    def loads(cls, data: bytes, path: str) -> "RunRecord":
        """Raise ``CorpusError`` for a file that is no run record of a format that is known."""
        try:
            values = yaml.load(data, _LOADER)
            layout.check_format(values["format"], path)
            for name in SCHEMAS:
                if name in values:
                    arrow = base64.b64decode(values.pop(f"{name}_arrow"))
                    values[name] = pa.ipc.read_schema(pa.py_buffer(arrow))
            if "detectors" not in values:
                values["detectors"] = _one_detector(values["config"], values.pop("detector_revision", None))
            return cls(**values)
        except (yaml.YAMLError, TypeError, KeyError, AttributeError, ValueError, pa.ArrowInvalid) as error:
            line = str(error).splitlines()[0]
            raise CorpusError(f"{path}: not a run record ({line}); put back the file that it was") from error


def _one_detector(config: Mapping[str, Any], sha256: str | None) -> list[dict[str, Any]]:
    """Return the detector of a run of before there could be several; it judged the whole list."""
    name = config["audit"]["detector"]
    if name is None or not config["erasure"]["concepts"]:
        return []
    names = [concept["name"] for concept in config["erasure"]["concepts"]]
    thresholds = {name: config["audit"]["thresholds"].get(name) for name in names}
    return [{"name": name, "role": "judge", "about": {}, "sha256": sha256 or "", "thresholds": thresholds}]


def environment_difference(pinned: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return a line ``key: pinned -> here`` for each field in which two environments differ."""
    keys = sorted(pinned.keys() | here.keys())
    return [f"{key}: {pinned.get(key)} -> {here.get(key)}" for key in keys if pinned.get(key) != here.get(key)]


def read_run_record(store: Store) -> RunRecord | None:
    """Return the run that *store* holds, or None where none was begun."""
    try:
        return RunRecord.loads(store.read(layout.RUN), f"{store.url}/{layout.RUN}")
    except FileNotFoundError:
        return None


def require_run_record(store: Store) -> RunRecord:
    """Return the run that *store* holds; ``CorpusError`` where it holds none."""
    record = read_run_record(store)
    if record is None:
        raise CorpusError(f"{store.url}: no corpus is here ({layout.RUN} is missing); expected the path of a corpus")
    return record


def create_run_record(store: Store, record: RunRecord) -> RunRecord:
    """Write *record* unless one is there; return the one that stands."""
    return RunRecord.loads(create_or_read(store, layout.RUN, record.dumps()), f"{store.url}/{layout.RUN}")
