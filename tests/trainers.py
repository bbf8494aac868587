"""Training loops over a corpus, as users write them, each run by real processes that train together (gloo)."""

import json
import multiprocessing
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from pipeline import Corpus, Loader
from pipeline.corpus.loader import BatchSampler, Stream

BATCH = 4
EPOCHS = 2
LIMIT = 280  # seconds; a rank that waits for another for ever is a failure


def as_it_is(samples):
    return {name: [sample[name] for sample in samples] for name in samples[0]}


def run(way: str, path: str, world: int, workers: int, start: str, folder: Path, **more: Any) -> list[list[list[int]]]:
    """Train by *way* in *world* processes; return the numbers that each rank received, epoch by epoch.

    The rendezvous is a file and the environment says nothing of ranks, as where a script spawns its own processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rendezvous").unlink(missing_ok=True)
    # Processes that ask an object store must not be forked from one that has; the others start faster so.
    context = multiprocessing.get_context("spawn" if "://" in path else "fork")
    arguments = (way, path, world, workers, start, str(folder), more)
    ranks = [context.Process(target=_rank, args=(rank, *arguments)) for rank in range(world)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(LIMIT)
        rank.kill()
    assert [rank.exitcode for rank in ranks] == [0] * world
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


def _rank(
    rank: int, way: str, path: str, world: int, workers: int, start: str, folder: str, more: Mapping[str, Any]
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name, None)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    seen = WAYS[way](path, workers, start, Path(folder), **more)
    dist.destroy_process_group()
    Path(folder, f"{rank}.json").write_text(json.dumps(seen))


def opened(path: str, options: Mapping[str, str] | None = None) -> Corpus:
    return Corpus(path, columns=["image", "number"], options=options)


def step(batch: Mapping[str, Any]) -> list[int]:
    """What a step of DDP does to its ranks: it waits for all of them, and would hang where one has no batch."""
    together = torch.tensor([len(batch["number"])])
    dist.all_reduce(together)
    assert together.item() == len(batch["number"]) * dist.get_world_size()
    return [int(number) for number in batch["number"]]


def by_loader(path, workers, start, folder, options=None, stop=None, state=None):
    loader = Loader(opened(path, options), BATCH, workers=workers, context=start if workers else None)
    if state is not None:
        loader.load_state_dict(state)
    seen = []
    for epoch in range(loader.epoch, EPOCHS):
        loader.set_epoch(epoch)
        seen.append([])
        for count, batch in enumerate(loader, 1):
            seen[-1] += step(batch)
            if [epoch + 1, count] == stop:
                (folder / f"state-{dist.get_rank()}.json").write_text(json.dumps(loader.state_dict()))
                return seen
    return seen


def arguments_of(workers, start):
    return {"num_workers": workers, "multiprocessing_context": start if workers else None}


def by_batch_sampler(path, workers, start, folder, options=None):
    corpus = opened(path, options)
    sampler = BatchSampler(corpus, BATCH, workers=workers)
    loader = DataLoader(corpus, batch_sampler=sampler, collate_fn=as_it_is, **arguments_of(workers, start))
    return [[number for batch in loader for number in step(batch)] for _ in range(EPOCHS)]


def by_stream(path, workers, start, folder, options=None):
    stream = Stream(opened(path, options), BATCH)
    loader = DataLoader(stream, batch_size=BATCH, collate_fn=as_it_is, **arguments_of(workers, start))
    return [[number for batch in loader for number in step(batch)] for _ in range(EPOCHS)]


def by_stateful(path, workers, start, folder, kind="sampler", stop=None, state=None):
    from torchdata.stateful_dataloader import StatefulDataLoader

    corpus = opened(path)
    if kind == "sampler":
        how = {"dataset": corpus, "batch_sampler": BatchSampler(corpus, BATCH, workers=workers)}
    else:
        how = {"dataset": Stream(corpus, BATCH), "batch_size": BATCH}
    loader = StatefulDataLoader(**how, collate_fn=as_it_is, **arguments_of(workers, start))
    if state is not None:
        loader.load_state_dict(torch.load(f"{state}-{dist.get_rank()}.pt", weights_only=False))
    seen = []
    while len(seen) < EPOCHS:
        seen.append([])
        for count, batch in enumerate(loader, 1):
            seen[-1] += step(batch)
            if [len(seen), count] == stop:
                torch.save(loader.state_dict(), folder / f"state-{dist.get_rank()}.pt")
    return seen


def by_accelerate(path, workers, start, folder, kind="loader"):
    from accelerate import Accelerator

    # As its launcher does it.
    os.environ.update(RANK=str(dist.get_rank()), LOCAL_RANK=str(dist.get_rank()), WORLD_SIZE=str(dist.get_world_size()))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="1")  # unused: the processes have met
    accelerator = Accelerator(cpu=True)
    corpus = opened(path)
    if kind == "loader":  # as it is: it is no DataLoader, and knows the ranks itself
        loader = Loader(corpus, BATCH, workers=workers, context=start if workers else None)
    else:  # accelerate deals the batches of one order to the ranks
        sampler = BatchSampler(corpus, BATCH, rank=0, world_size=1)
        loader = accelerator.prepare(
            DataLoader(corpus, batch_sampler=sampler, collate_fn=as_tensors, **arguments_of(workers, start))
        )
    return [[number for batch in loader for number in step(batch)] for _ in range(EPOCHS)]


def as_tensors(samples):
    return {"number": torch.tensor([sample["number"] for sample in samples])}


def by_lightning(path, workers, start, folder, kind="loader", stop=None, checkpoint=None):
    import pytorch_lightning
    from pytorch_lightning.plugins.environments import LightningEnvironment
    from pytorch_lightning.strategies import DDPStrategy

    class Model(pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.seen, self.layer = [[]], torch.nn.Linear(1, 1)

        def training_step(self, batch, _):
            self.seen[-1] += step(batch)
            return self.layer(torch.ones(1)).sum()

        def on_train_batch_end(self, *_):
            if self.global_step == stop:
                self.trainer.save_checkpoint(folder / "lightning.ckpt")

        def on_train_epoch_end(self):
            self.seen.append([])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Ranks(LightningEnvironment):
        """The processes are there already."""

        @property
        def creates_processes_externally(self):
            return True

        def world_size(self):
            return dist.get_world_size()

        def global_rank(self):
            return dist.get_rank()

        def local_rank(self):
            return dist.get_rank()

        def set_world_size(self, size):
            pass

        def set_global_rank(self, rank):
            pass

    corpus = opened(path)
    if kind == "loader":
        loader = Loader(corpus, BATCH, workers=workers, context=start if workers else None)
    else:
        sampler = BatchSampler(corpus, BATCH, workers=workers)
        loader = DataLoader(corpus, batch_sampler=sampler, collate_fn=as_tensors, **arguments_of(workers, start))
    strategy = DDPStrategy(cluster_environment=Ranks(), process_group_backend="gloo")
    trainer = pytorch_lightning.Trainer(
        accelerator="cpu", devices=dist.get_world_size(), strategy=strategy,
        max_epochs=EPOCHS, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    model = Model()
    trainer.fit(model, loader, ckpt_path=checkpoint)
    return [epoch for epoch in model.seen if epoch]


WAYS = {
    "loader": by_loader,
    "batch_sampler": by_batch_sampler,
    "stream": by_stream,
    "stateful": by_stateful,
    "accelerate": by_accelerate,
    "lightning": by_lightning,
}
