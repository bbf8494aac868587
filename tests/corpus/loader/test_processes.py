"""Training by real processes: equal counts, no sample twice, another order each epoch, and exact resumes.

A few of the combinations are run each time; with LACUNA_LOADER_MATRIX=1 all of them.
"""

import json
import os
from itertools import product

import pytest
import torch

from pipeline import Corpus, Loader
from pipeline.corpus.loader.order import Rounds
from pipeline.errors import CorpusError
from tests import trainers
from tests.corpora import make_corpus
from tests.trainers import BATCH, EPOCHS, run

pytestmark = pytest.mark.slow

TOTAL = 344
USES = {  # by name: the way, its kind, and what has to be installed
    "loader": ("loader", {}, ()),
    "batch sampler": ("batch_sampler", {}, ()),
    "stream": ("stream", {}, ()),
    "stateful, batch sampler": ("stateful", {"kind": "sampler"}, ("torchdata.stateful_dataloader",)),
    "stateful, stream": ("stateful", {"kind": "stream"}, ("torchdata.stateful_dataloader",)),
    "accelerate, loader": ("accelerate", {"kind": "loader"}, ("accelerate",)),
    "accelerate, DataLoader": ("accelerate", {"kind": "dataloader"}, ("accelerate",)),
    "lightning, loader": ("lightning", {"kind": "loader"}, ("pytorch_lightning",)),
    "lightning, DataLoader": ("lightning", {"kind": "dataloader"}, ("pytorch_lightning",)),
}
SOME = [
    ("loader", 4, 3, "fork"),
    ("loader", 1, 1, "spawn"),
    ("batch sampler", 2, 3, "fork"),
    ("stream", 2, 3, "fork"),
    ("stream", 1, 1, "spawn"),
    ("stateful, batch sampler", 2, 1, "fork"),
    ("stateful, stream", 2, 3, "fork"),
    ("accelerate, loader", 2, 0, "fork"),
    ("accelerate, DataLoader", 2, 1, "fork"),
    ("lightning, loader", 2, 1, "fork"),
    ("lightning, DataLoader", 2, 1, "fork"),
]
ALL = [(use, *numbers) for use in USES for numbers in product((1, 2, 4), (0, 1, 3), ("fork", "spawn"))]
# Without workers nothing is started.
EVERYTHING = os.environ.get("LACUNA_LOADER_MATRIX") == "1"
MATRIX = [c for c in ALL if c[2] or c[3] == "fork"] if EVERYTHING else SOME


def check(seen: list[list[list[int]]], world: int, workers: int) -> None:
    rounds = Rounds(TOTAL, BATCH, world, workers, pad=False)
    given = rounds.steps(0) * rounds.step
    orders = []
    for epoch in range(EPOCHS):
        parts = [rank[epoch] for rank in seen]
        assert {len(part) for part in parts} == {given // world}
        assert len(set().union(*parts)) == given
        orders.append(tuple(parts[0]))
    assert len(set(orders)) == EPOCHS


@pytest.mark.parametrize(("use", "world", "workers", "start"), MATRIX)
def test_ranks_and_workers_share_each_epoch(corpus, tmp_path, use, world, workers, start):
    way, kind, needed = USES[use]
    for module in needed:
        pytest.importorskip(module)
    seen = run(way, corpus, world, workers, start, tmp_path / "run", **kind)
    # accelerate deals out whole batches of an order that knows neither ranks nor workers, and drops what is left over.
    if use == "accelerate, DataLoader":
        each = TOTAL // BATCH // world * BATCH
        assert {len(rank[epoch]) for rank in seen for epoch in range(EPOCHS)} == {each}
        assert all(len(set().union(*(rank[epoch] for rank in seen))) == each * world for epoch in range(EPOCHS))
        assert seen[0][0] != seen[0][1]
    else:
        check(seen, world, workers)


def test_a_training_of_other_processes_goes_on_exactly(corpus, tmp_path):
    stop = [2, 9]  # in the second epoch
    first = run("loader", corpus, 2, 3, "fork", tmp_path / "a", stop=stop)
    states = [json.loads((tmp_path / "a" / f"state-{rank}.json").read_text()) for rank in range(2)]
    assert states[0] == states[1]
    assert states[0]["position"] == 9 * 2 * BATCH  # what the loops received, not what workers had ready
    second = run("loader", corpus, 4, 1, "fork", tmp_path / "b", state=states[1])
    before = [number for rank in first for number in rank[1]]
    after = [number for rank in second for number in rank[0]]
    assert len({len(rank[0]) for rank in second}) == 1
    assert len(set(before + after)) == len(before + after)
    assert TOTAL - len(before + after) < 4 * 1 * BATCH


@pytest.mark.parametrize("kind", ["sampler", "stream"])
def test_a_stateful_data_loader_goes_on_exactly_at_equal_numbers_alone(corpus, tmp_path, kind):
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    whole = run("stateful", corpus, 2, 3, "fork", tmp_path / "a", kind=kind, stop=[2, 5])
    state = str(tmp_path / "a" / "state")
    rest = run("stateful", corpus, 2, 3, "fork", tmp_path / "b", kind=kind, state=state)
    for rank in range(2):
        assert rest[rank][0] == whole[rank][1][5 * BATCH :]
        assert len(rest[rank][1]) == len(whole[rank][1])
        assert rest[rank][1] not in whole[rank]  # the third epoch
    opened = Corpus(corpus, columns=["number"])
    more = {"collate_fn": trainers.as_it_is, "num_workers": 3}
    if kind == "sampler":
        loader = stateful.StatefulDataLoader(
            opened, batch_sampler=trainers.BatchSampler(opened, BATCH, workers=3, rank=0, world_size=4), **more
        )
    else:
        stream = trainers.Stream(opened, BATCH, rank=0, world_size=4)
        loader = stateful.StatefulDataLoader(stream, batch_size=BATCH, **more)
    loader.load_state_dict(torch.load(f"{state}-0.pt", weights_only=False))
    with pytest.raises(CorpusError, match=r"saved with world_size 2 and is loaded with 4; a pipeline.Loader"):
        next(iter(loader))


def test_lightning_saves_and_loads_the_loader_s_state(corpus, tmp_path):
    pytest.importorskip("pytorch_lightning")
    steps = TOTAL // BATCH // 2
    whole = run("lightning", corpus, 2, 0, "fork", tmp_path / "a", stop=steps + 7)
    checkpoint = str(tmp_path / "a" / "lightning.ckpt")
    rest = run("lightning", corpus, 2, 0, "fork", tmp_path / "b", checkpoint=checkpoint)
    assert rest == [[rank[1][7 * BATCH :]] for rank in whole]


@pytest.mark.parametrize(("world", "workers"), [(1, 1), *((2, 0), (2, 1), (4, 3)) * bool(EVERYTHING)])
def test_a_corpus_on_s3(s3, tmp_path, world, workers):
    make_corpus(path := f"s3://corpora/{tmp_path.name}", [100, 28, 0, 128, 88], s3)
    if world == 1:
        loader = Loader(Corpus(path, columns=["image", "number"], options=s3), BATCH, workers=workers)
        check([[[n for batch in loader for n in batch["number"].tolist()] for _ in range(EPOCHS)]], 1, workers)
    else:
        check(run("loader", path, world, workers, "spawn", tmp_path / "run", options=s3), world, workers)


def test_a_forked_worker_that_would_ask_s3_says_so(s3, tmp_path):
    make_corpus(path := f"s3://corpora/{tmp_path.name}", [20], s3)
    loader = torch.utils.data.DataLoader(
        Corpus(path, options=s3), batch_size=4, num_workers=1, multiprocessing_context="fork", collate_fn=len
    )
    with pytest.raises(Exception, match=r"does not survive a fork; start it by spawn"):
        next(iter(loader))
