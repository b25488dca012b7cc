import copy

import pytest
import torch
from torch import nn

from roiflow.ranking.optimiser import AdamW
from tests.unit.ranking.worlds import PARAMS

RATES = (0.01, 0.003)
SHARES = (0.5, 1.0, 0.2, 0.0)


def net() -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList([nn.Linear(4, 3), nn.Embedding(5, 2)])


def push(layers: nn.ModuleList, step: int) -> None:
    """Gradients of a loss that is small first, and then so large that it is clipped."""
    linear, table = layers
    out = linear(torch.arange(8.0).reshape(2, 4)).square().sum() + table(torch.tensor([1])).sum()
    (out * 10.0 ** (step - 3)).backward()


def test_steps_and_average_are_those_of_torch() -> None:
    params = PARAMS.model_copy(update={"weight_decay": 0.1, "max_gradient": 0.5, "averaging": 0.15})
    expected, ours = net(), net()
    averaged, average = copy.deepcopy(expected), copy.deepcopy(ours)
    theirs = torch.optim.AdamW(
        [{"params": layer.parameters()} for layer in expected], weight_decay=0.1
    )
    optimiser = AdamW(
        [(list(layer.parameters()), rate) for layer, rate in zip(ours, RATES, strict=True)],
        list(average.parameters()),
        params,
    )
    clipped = []
    for step, share in enumerate(SHARES):
        push(expected, step)
        push(ours, step)
        clipped.append(float(nn.utils.clip_grad_norm_(expected.parameters(), 0.5)) > 0.5)
        for group, rate in zip(theirs.param_groups, RATES, strict=True):
            group["lr"] = share * rate
        theirs.step()
        theirs.zero_grad()
        optimiser.step(share)
        # t / (t + 9) is 1/10 and 2/11 at the first two steps, 0.15 at most
        keep = (0.1, 0.15, 0.15, 0.15)[step]
        with torch.no_grad():
            for mean, value in zip(averaged.parameters(), expected.parameters(), strict=True):
                mean.lerp_(value, 1 - keep)
        for found, wanted in ((ours, expected), (average, averaged)):
            for left, right in zip(found.parameters(), wanted.parameters(), strict=True):
                torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)
    assert clipped == [False, True, True, True]


def test_gradients_are_used_up_by_a_step() -> None:
    layers = net()
    optimiser = AdamW([(list(layers.parameters()), 0.1)], list(net().parameters()), PARAMS)
    push(layers, 0)
    assert optimiser.gradient.abs().sum() > 0
    optimiser.step(1.0)
    assert optimiser.gradient.abs().sum() == 0
    before = optimiser.values.clone()
    push(layers, 0)
    optimiser.step(1.0)
    assert float((optimiser.values - before).abs().max()) == pytest.approx(0.1, rel=0.1)
