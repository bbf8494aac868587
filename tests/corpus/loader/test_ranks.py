"""Which rank this is: given or torch.distributed's, and refused where neither says it."""

import pickle

import pytest
import torch.distributed as dist

from pipeline.corpus.loader.ranks import Ranks
from pipeline.errors import ConfigError


def test_alone_unless_something_says_otherwise(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Ranks().settled() == (0, 1)
    assert Ranks(1, 3).settled() == (1, 3)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert Ranks(1, 3).settled() == (1, 3)
    with pytest.raises(ConfigError, match=r"WORLD_SIZE is 4 and torch.distributed is not initialised; call"):
        Ranks().settled()


@pytest.mark.parametrize("given", [(1, None), (None, 2), (2, 2), (-1, 2)])
def test_what_is_no_rank_is_refused(given):
    with pytest.raises(ConfigError, match="rank"):
        Ranks(*given)


def test_a_pickled_one_takes_along_what_the_training_process_knows(monkeypatch, tmp_path):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    monkeypatch.setattr(dist, "get_rank", lambda: 2)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    try:
        taken = pickle.dumps(Ranks())
    finally:
        dist.destroy_process_group()
    assert pickle.loads(taken).settled() == (2, 3)


def test_one_that_is_pickled_before_there_are_ranks_asks_where_it_comes_to(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    given, asking = (pickle.loads(pickle.dumps(ranks)) for ranks in (Ranks(1, 3), Ranks()))
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 2)
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    assert (given.settled(), asking.settled()) == ((1, 3), (2, 4))
