"""The lines that open a corpus in each reader, for its card. ``README.md`` here says of each how it was tried."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from pipeline.corpus import layout
from pipeline.corpus.commit import CommitRecord
from pipeline.corpus.run_record import RunRecord

TRIED = "All of these lines were run, open_clip's with a model and a batch size of its own"


@dataclass(frozen=True)
class Lines:
    """``code`` opens the corpus in the folder ``path`` in ``reader``, as ``data`` where it is Python."""

    reader: str
    language: str
    code: str


def readers(run: RunRecord, records: Sequence[CommitRecord]) -> list[Lines]:
    """Return the lines for a corpus of which something is kept, in a folder ``path`` on disk; Lacuna's come first."""
    values = {
        "TARS": braces([record.shard for record in records if record.file(layout.tar(record.shard)) is not None]),
        "KEPT": str(sum(record.counts["ok"] for record in records)),
        "IMAGE": run.config["output"]["image_format"],
        "WIDS": layout.wids(run.format),
        "ONLY": ', file_extensions=["tar"]' if run.format == 1 else "",
        "INDEX": layout.dali(0, run.format).rpartition("/")[0],
    }
    found = []
    for reader, language, code in _LINES:
        code = textwrap.dedent(code).strip("\n")
        for name, value in values.items():
            code = code.replace(name, value)
        found.append(Lines(reader, language, code))
    return found


def braces(shards: Sequence[int]) -> str:
    """Return a pattern that ``braceexpand`` makes the names of *shards* (ascending) of: ``{000000..000007}``."""
    runs = []
    for _, run in groupby(enumerate(shards), lambda pair: pair[1] - pair[0]):
        numbers = [shard for _, shard in run]
        first, last = layout.shard_name(numbers[0]), layout.shard_name(numbers[-1])
        runs.append(first if first == last else f"{{{first}..{last}}}")
    return runs[0] if len(runs) == 1 else f"{{{','.join(runs)}}}"


_LINES = (
    (
        "Lacuna",
        "python",
        """
        from pipeline import Corpus, Loader

        data = Loader(Corpus(path), batch_size=32)
        """,
    ),
    (
        "WebDataset",
        "python",
        """
        import webdataset

        tars = path + "/train/TARS.tar"
        data = webdataset.WebDataset(tars, shardshuffle=100, empty_check=False).decode("rgb8").to_tuple("IMAGE", "txt")
        """,
    ),
    (
        "wids",
        "python",
        """
        import wids

        data = wids.ShardListDataset(path + "/WIDS")
        """,
    ),
    (
        "Hugging Face datasets",
        "python",
        """
        import datasets

        data = datasets.load_dataset(path, split="train")  # or with streaming=True
        """,
    ),
    (
        "Ray Data",
        "python",
        """
        import ray

        data = ray.data.read_webdataset(path + "/train"ONLY)
        """,
    ),
    (
        "NVIDIA DALI",
        "python",
        """
        from glob import glob
        from pathlib import Path
        from nvidia.dali import fn, pipeline_def

        indexes = sorted(glob(path + "/INDEX/*.idx"))  # of the tars that hold something
        tars = [f"{path}/train/{Path(index).stem}.tar" for index in indexes]

        @pipeline_def(batch_size=32, num_threads=2, device_id=None)
        def pictures():
            image, caption = fn.readers.webdataset(paths=tars, index_paths=indexes, ext=["IMAGE", "txt"], name="reader")
            return fn.decoders.image(image, device="cpu"), caption

        data = pictures()
        """,
    ),
    (
        "Megatron Energon",
        "python",
        """
        import json, subprocess
        from pathlib import Path
        from megatron.energon import WorkerConfig, get_loader, get_train_dataset

        links = Path(path + "-energon")  # it writes indexes beside the tars, so they are linked to from elsewhere
        links.mkdir()
        for shard in json.loads(Path(path, "WIDS").read_text())["shardlist"]:
            tar = Path(path, "train", Path(shard["url"]).name).resolve()
            (links / tar.name).symlink_to(tar)
        kind = ["--sample-type", "CaptioningSample", "--field-map", '{"image": "IMAGE", "caption": "txt"}']
        prepare = ["energon", "prepare", str(links), "--non-interactive", "--split-ratio", "1,0,0"]
        subprocess.run([*prepare, *kind], check=True)
        workers = WorkerConfig(rank=0, world_size=1, num_workers=2)
        data = get_loader(get_train_dataset(str(links), batch_size=32, shuffle_buffer_size=1000,
                                            max_samples_per_sequence=100, worker_config=workers))
        """,
    ),
    (
        "open_clip",
        "bash",
        """
        python -m open_clip_train.main --dataset-type webdataset --train-num-samples KEPT \\
            --train-data "$path/train/TARS.tar"
        """,
    ),
    (
        "LitData",
        "python",
        """
        from glob import glob
        import litdata, webdataset

        def pictures(tar):
            for sample in webdataset.WebDataset(tar, shardshuffle=False, empty_check=False):
                yield {"image": sample["IMAGE"], "caption": sample["txt"].decode()}

        litdata.optimize(fn=pictures, inputs=sorted(glob(path + "/train/*.tar")), output_dir=path + "-litdata",
                         chunk_bytes="64MB")  # it reads no tars but its own format, and must be given a copy in that
        data = litdata.StreamingDataset(path + "-litdata")
        """,
    ),
)
