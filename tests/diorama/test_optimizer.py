"""Muon's step is orthogonal, the schedule has its three parts, the average forgets its beginning."""

import torch
from torch import nn

from pipeline.diorama.optimizer import Average, Muon, optimizers, orthogonalize, schedule


def test_singular_values_come_out_near_one():
    torch.manual_seed(0)
    for shape in ((32, 96), (96, 32)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.4


def test_muon_and_adamw_share_the_parameters_and_lower_the_loss():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.LazyLinear(2))
    x, y = torch.randn(64, 3, 5, 5), torch.randn(64, 2)
    model(x)
    parts = optimizers(model, 1e-2)
    assert sum(len(group["params"]) for part in parts for group in part.param_groups) == 4
    assert isinstance(parts[1], Muon)
    assert len(parts[1].param_groups[0]["params"]) == 2
    losses = []
    for _ in range(60):
        loss = (model(x) - y).square().mean()
        loss.backward()
        for part in parts:
            part.step()
            part.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_schedule_rises_holds_and_falls():
    factors = [schedule(step, 1000, warmup=10, decay_share=0.2) for step in range(1001)]
    assert factors[0] == 0.1
    assert factors[100] == factors[799] == 1.0
    assert factors[1000] == 0.0
    assert abs(factors[900] - 0.5) < 1e-9


def test_the_average_lags_behind_and_forgets_the_start():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, -1.0)
    average = Average(model, 0.9)
    nn.init.constant_(model.weight, 1.0)
    average.update(model)
    first = float(average.weights["weight"])
    assert -1 < first < 1
    for _ in range(100):
        average.update(model)
    assert float(average.weights["weight"]) > 0.99
