"""List-wise PPO (Schulman et al., 2017), batched over slates.

Each slot is one action: the choice of a candidate given those above. All slates of a batch are
sampled, rewarded and differentiated as arrays; the network runs once per request, not per slate.
Three things differ from the paper. The baseline is the mean reward-to-go of the other slates of
the same request (Kool, van Hoof & Welling, 2019), not a learned critic. Expectations over the
candidates of a slot are sums, so the divergence from the start policy and the entropy are exact
given the slots above. And advantages are in units of the start policy's within-request deviation,
fixed once: kl_weight and entropy_weight then mean the same at every iteration.

The divergence is taken from the start policy (the ranker's softmax), not from the logging policy:
a log tells the logging policy's probability of the slate that was shown, not of the others, and
some sources log none; the start policy is known everywhere.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from roiflow.features.table import Flags, Floats, Longs
from roiflow.params import PolicyParams
from roiflow.policy import plackett_luce
from roiflow.policy.environment import rewards_to_go, slot_rewards
from roiflow.policy.network import Network

NEVER = -1e9
"""Logit of what cannot be chosen: finite, so that its gradient is 0 and not NaN."""


class Residual(torch.nn.Module):
    """`Network` in torch, float64."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.input_weight = torch.nn.Parameter(torch.tensor(network.input_weight))
        self.input_bias = torch.nn.Parameter(torch.tensor(network.input_bias))
        self.hidden_weight = torch.nn.Parameter(torch.tensor(network.hidden_weight))
        self.hidden_bias = torch.nn.Parameter(torch.tensor(network.hidden_bias))
        self.output_weight = torch.nn.Parameter(torch.tensor(network.output_weight))

    def forward(self, x: Tensor) -> Tensor:
        """(..., FEATURES) -> (...)."""
        first = torch.tanh(x @ self.input_weight + self.input_bias)
        second = torch.tanh(first @ self.hidden_weight + self.hidden_bias)
        return second @ self.output_weight

    def network(self) -> Network:
        """The weights as they are now."""
        return Network(
            **{name: value.detach().numpy().copy() for name, value in self.named_parameters()}
        )


class Optimizer(Protocol):
    """Moves the weights; their gradients start at 0 and add up until it does."""

    def step(self) -> object:
        """Down the gradients."""
        ...


class Adam:
    """Adam (Kingma & Ba, 2015) on all of a residual's weights as one vector.

    The same steps to the bit as torch's, whose first one imports torch's compiler: a tenth of what
    the whole policy stage takes.
    """

    BETAS = (0.9, 0.999)
    EPSILON = 1e-8

    def __init__(self, residual: Residual, learning_rate: float) -> None:
        """The residual's parameters become views of the vector, and so do their gradients."""
        parameters = list(residual.parameters())
        self._values = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
        self._gradient = torch.zeros_like(self._values)
        self._mean, self._square = torch.zeros_like(self._values), torch.zeros_like(self._values)
        self._learning_rate, self._steps = learning_rate, 0
        start = 0
        for parameter in parameters:
            part = slice(start, start + parameter.numel())
            parameter.data = self._values[part].view_as(parameter)
            parameter.grad = self._gradient[part].view_as(parameter)
            start = part.stop

    @torch.no_grad()
    def step(self) -> None:
        """Down the gradients, which are then 0."""
        first, second = self.BETAS
        self._steps += 1
        self._mean.lerp_(self._gradient, 1 - first)
        self._square.mul_(second).addcmul_(self._gradient, self._gradient, value=1 - second)
        # Both start at 0; dividing by 1 - beta^t makes up for it.
        root = (1 - second**self._steps) ** 0.5
        rate = self._learning_rate / (1 - first**self._steps)
        scale = (self._square.sqrt() / root).add_(self.EPSILON)
        self._values.addcdiv_(self._mean, scale, value=-rate)
        self._gradient.zero_()

    def state(self) -> dict[str, Tensor | int]:
        """What a run that goes on needs, beside the residual."""
        return {"mean": self._mean, "square": self._square, "steps": self._steps}

    def restore(self, mean: Tensor, square: Tensor, steps: int) -> None:
        """What `state` gave."""
        self._mean.copy_(mean)
        self._square.copy_(square)
        self._steps = steps


@dataclass(frozen=True)
class Requests:
    """What training knows of B requests with K candidates each."""

    start: Floats  # (B, K) logits of the start policy, -inf without a candidate
    inputs: Floats  # (B, K, FEATURES)
    value: Floats  # (B, K) micros

    def take(self, rows: Longs) -> "Requests":
        """The requests `rows`."""
        return Requests(self.start[rows], self.inputs[rows], self.value[rows])


@dataclass(frozen=True)
class Batch:
    """G slates of each of B requests, as sampled; S slots."""

    choices: Longs  # (B, G, S)
    log_propensity: Floats  # (B, G, S) under the policy that sampled
    advantage: Floats  # (B, G, S) reward-to-go above the other slates', over the reward scale


def logits(residual: Residual, bound: float, start: Tensor, inputs: Tensor) -> Tensor:
    """SlatePolicy.logits in torch; (B, K)."""
    return start + bound * torch.tanh(residual(inputs))


def sample_slates(
    logit: Floats, samples: int, slots: int, rng: np.random.Generator
) -> tuple[Longs, Floats]:
    """`samples` slates of each request, with log propensities; (B, K) -> (B, samples, slots)."""
    shape = (logit.shape[0], samples, slots)
    repeated = np.repeat(logit, samples, axis=0)
    choices, propensity = plackett_luce.sample(repeated, slots, rng)
    return choices.reshape(shape), np.log(propensity).reshape(shape)


def advantages(value: Floats, choices: Longs, scale: float) -> Floats:
    """Reward-to-go minus the mean of the request's other slates, over `scale`; (B, G, S)."""
    # Leave-one-out: a baseline that held the slate itself would bias the gradient towards 0.
    reward = rewards_to_go(slot_rewards(value, choices))
    others = (reward.sum(axis=1, keepdims=True) - reward) / (choices.shape[1] - 1)
    return (reward - others) / scale


def reward_scale(value: Floats, choices: Longs) -> float:
    """Micros: deviation of the slate's reward within a request; 1 where no choice matters."""
    reward = slot_rewards(value, choices).sum(axis=2)
    scale = float(np.sqrt(np.mean(reward.var(axis=1, ddof=1))))
    return scale if scale > 0 else 1.0


def taken(choices: Longs, candidates: int) -> Flags:
    """True where a slot above already holds the candidate; (B, G, S) -> (B, G, S, candidates)."""
    # One column more than candidates: an empty slot (-1) marks that one, and no candidate.
    held = np.zeros((*choices.shape, candidates + 1), bool)
    above = np.where(choices < 0, candidates, choices)[:, :, :-1, None]
    np.put_along_axis(held[:, :, 1:], above, True, axis=3)
    return np.logical_or.accumulate(held, axis=2)[..., :candidates]


def slot_log_probabilities(logit: Tensor, held: Tensor) -> Tensor:
    """Log of each slot's distribution given the slots above; (B, K), (B, G, S, K) -> as `held`."""
    return torch.log_softmax(logit[:, None, None, :].masked_fill(held, NEVER), dim=3)


def chosen_log_probabilities(log_probability: Tensor, choices: Tensor) -> Tensor:
    """(B, G, S, K), (B, G, S) -> (B, G, S); 0 for an empty slot."""
    picked = log_probability.gather(3, choices.clamp(min=0)[..., None])[..., 0]
    return torch.where(choices >= 0, picked, 0.0)


def clipped_objective(log_ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """min(r A, clip(r, 1 - eps, 1 + eps) A), element by element  (Schulman et al., 2017, eq. 7)."""
    ratio = torch.exp(log_ratio)
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def divergence(log_probability: Tensor, log_start: Tensor) -> Tensor:
    """KL(policy || start) of each slot; (..., K) -> (...)."""
    # What cannot be chosen has probability 0 and finite logarithms, and so adds 0 and not NaN.
    return (log_probability.exp() * (log_probability - log_start)).sum(-1)


def entropy(log_probability: Tensor) -> Tensor:
    """Entropy of each slot in nats; (..., K) -> (...)."""
    return -(log_probability.exp() * log_probability).sum(-1)


def update(
    residual: Residual,
    optimizer: Optimizer,
    requests: Requests,
    batch: Batch,
    params: PolicyParams,
) -> None:
    """`ppo_epochs` steps up the objective, per slate:

    sum over slots of clipped objective - kl_weight x divergence + entropy_weight x entropy.
    """
    # What does not move with the weights is made once for all epochs of the batch.
    start = torch.from_numpy(np.maximum(requests.start, NEVER))
    inputs = torch.from_numpy(requests.inputs)
    choices = torch.from_numpy(batch.choices)
    held = torch.from_numpy(taken(batch.choices, requests.start.shape[1]))
    old = torch.from_numpy(batch.log_propensity)
    advantage = torch.from_numpy(batch.advantage)
    log_start = slot_log_probabilities(start, held)
    filled = choices >= 0
    slates = choices.shape[0] * choices.shape[1]
    for _ in range(params.ppo_epochs):
        logit = logits(residual, params.residual_bound, start, inputs)
        log_probability = slot_log_probabilities(logit, held)
        new = chosen_log_probabilities(log_probability, choices)
        gain = (
            clipped_objective(new - old, advantage, params.clip)
            - params.kl_weight * divergence(log_probability, log_start)
            + params.entropy_weight * entropy(log_probability)
        )
        torch.autograd.backward(-torch.where(filled, gain, 0.0).sum() / slates)
        optimizer.step()
