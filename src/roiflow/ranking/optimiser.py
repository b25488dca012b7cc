"""AdamW with a moving average of the weights behind it, on all weights as one vector.

torch's optimiser steps tensor by tensor (57 of them, most of a few kilobytes) and its first step
imports torch's compiler, which takes a second; here a step is a dozen passes over one vector.
"""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor
from torch.nn import Parameter

from roiflow.params import RankerParams

BETAS = (0.9, 0.999)
EPSILON = 1e-8

Group = tuple[Sequence[Parameter], float]
"""Parameters and their highest learning rate."""


def flatten(parameters: Sequence[Parameter]) -> Tensor:
    """One vector (n,) of all values; the parameters become views of it."""
    vector = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    _spread(parameters, vector, "data")
    return vector


def _spread(parameters: Sequence[Parameter], vector: Tensor, name: str) -> None:
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, part in zip(parameters, torch.split(vector, sizes), strict=True):
        setattr(parameter, name, part.view_as(parameter))


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019) and clipped gradients.

    `average` follows the weights: w <- k w + (1 - k) v, k = min(averaging, t / (t + 9)) at step t.
    That is exponential averaging (Polyak and Juditsky, 1992) which starts at the weights and soon
    forgets its start.
    """

    def __init__(
        self, groups: Sequence[Group], average: Sequence[Parameter], params: RankerParams
    ) -> None:
        """`average`: parameters like those of the groups, in their order."""
        parameters = list(chain.from_iterable(group for group, _ in groups))
        self.values, self.average = flatten(parameters), flatten(average)
        self.gradient = torch.zeros_like(self.values)
        # Autograd adds to a gradient that is there, so every one must be a view from the start.
        _spread(parameters, self.gradient, "grad")
        self._mean, self._square = torch.zeros_like(self.values), torch.zeros_like(self.values)
        self._sizes = [sum(parameter.numel() for parameter in group) for group, _ in groups]
        self._rates = [rate for _, rate in groups]
        self._params, self._steps = params, 0

    @torch.no_grad()
    def step(self, share: float) -> None:
        """Move by the gradients, which are then 0, at `share` of the highest learning rates."""
        self._steps += 1
        # One norm over all weights, and 1e-6, as torch's clip_grad_norm_ has it.
        norm = float(torch.linalg.vector_norm(self.gradient))
        self.gradient.mul_(min(1.0, self._params.max_gradient / (norm + 1e-6)))
        first, second = BETAS
        self._mean.lerp_(self.gradient, 1 - first)
        self._square.mul_(second).addcmul_(self.gradient, self.gradient, value=1 - second)
        self.gradient.zero_()
        # Both start at 0; dividing by 1 - beta^t makes up for it.
        scale = self._square.sqrt().div_((1 - second**self._steps) ** 0.5).add_(EPSILON)
        parts = zip(
            self._rates,
            *(torch.split(each, self._sizes) for each in (self.values, self._mean, scale)),
            strict=True,
        )
        for peak, values, mean, spread in parts:
            rate = share * peak
            values.mul_(1 - rate * self._params.weight_decay)
            values.addcdiv_(mean, spread, value=-rate / (1 - first**self._steps))
        # The average is young: while there are few steps, the latest of them weigh more.
        keep = min(self._params.averaging, self._steps / (self._steps + 9))
        self.average.lerp_(self.values, 1 - keep)
