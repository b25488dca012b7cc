"""Parts that the neural rankers share: embeddings, dense features, attention, heads.

Everything is matmul, softmax, gather and elementwise arithmetic, so it exports to ONNX.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roiflow.features.table import Features, Longs, Singles

MAX_POSITION = 20
MASKED = -1e9


@dataclass(frozen=True)
class Logits:
    """Outputs of the heads, all (..., I)."""

    click: Tensor  # at position 1
    conversion: Tensor  # given a click
    revenue_mean: Tensor  # of log(revenue in units of the currency), given a conversion
    revenue_std: Tensor


class IdTable(nn.Embedding):
    """Embedding of an id of many values, trained at a learning rate of its own.

    Adam moves a rare id as far as a frequent one, so at the full rate the ids memorise the log.
    """


def deviations(rows: int, dim: int) -> IdTable:
    """Ids whose rows start at 0: an id never trained on stays at the shared vector 0.

    Row 0, out of vocabulary, never moves.
    """
    table = IdTable(rows, dim, padding_idx=0)
    nn.init.zeros_(table.weight)
    return table


def small_embedding(rows: int, dim: int) -> nn.Embedding:
    """Embedding of an attribute of few values."""
    table = nn.Embedding(rows, dim)
    nn.init.normal_(table.weight, std=dim**-0.5)
    return table


class DenseEncoding(nn.Module):
    """Standardised values and piecewise-linear bins (Gorishniy et al., 2022, equation 1).

    (..., F) raw -> (..., F * (1 + T)): (x - mean) / std clipped to [-5, 5], and for each of T
    quantile bins how much of the bin lies below x, in [0, 1].
    """

    def __init__(self, features: int, bins: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.register_buffer("low", torch.zeros(features, bins))
        self.register_buffer("inverse_width", torch.zeros(features, bins))
        self.width = features * (1 + bins)
        self.mean: Tensor
        self.std: Tensor
        self.low: Tensor
        self.inverse_width: Tensor

    def fit(self, dense: Singles, mean: Singles, std: Singles) -> None:
        """Set the bins at quantiles of the training rows (n, F); empty bins stay 0."""
        bins = self.low.shape[1]
        self.mean.copy_(torch.from_numpy(np.array(mean, np.float32)))
        self.std.copy_(torch.from_numpy(np.array(std, np.float32)))
        edges = np.quantile(dense, np.linspace(0, 1, bins + 1), axis=0).T.astype(np.float32)
        for feature, edge in enumerate(edges):
            distinct = np.unique(edge)
            low, width = distinct[:-1], np.diff(distinct)
            self.low[feature, : low.size] = torch.from_numpy(low)
            self.inverse_width[feature, : low.size] = torch.from_numpy(1 / width)

    def forward(self, dense: Tensor) -> Tensor:
        """(..., F) -> (..., F (1 + T))."""
        scaled = torch.clamp((dense - self.mean) / self.std, -5.0, 5.0)
        part = torch.clamp((dense.unsqueeze(-1) - self.low) * self.inverse_width, 0.0, 1.0)
        return torch.cat([scaled, part.flatten(-2)], dim=-1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(R, N, d) -> (R, heads, N, d / heads)."""
    rows, length, dim = x.shape
    return x.reshape(rows, length, heads, dim // heads).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(R, heads, N, d / heads) -> (R, N, d)."""
    rows, heads, length, dim = x.shape
    return x.transpose(1, 2).reshape(rows, length, heads * dim)


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v  (Vaswani et al., 2017); bias holds MASKED entries.

    (R, h, N, e), (R, h, M, e), (R, h, M, e), broadcastable to (R, h, N, M) -> (R, h, N, e).
    """
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + bias
    return torch.softmax(scores, dim=-1) @ value


def band(length: Tensor, width: int, window: int) -> Tensor:
    """Causal banded mask (R, 1, T, T): event i sees the last `window` events up to itself.

    `length` (R,) events are right-aligned in `width` columns; a column without an event sees
    itself alone.
    """
    at = torch.arange(width)
    back = at[:, None] - at[None, :]
    near = (back >= 0) & (back < window)
    filled = at >= width - length[:, None]
    return (near & filled[:, None, :] | (back == 0))[:, None]


class Heads(nn.Module):
    """Click, conversion and revenue from one trunk."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.out = nn.Linear(hidden, 4)
        nn.init.normal_(self.out.weight, std=0.01)

    def start(self, click: float, conversion: float, mean: float, std: float) -> None:
        """Set the biases to base rates (logits) and the moments of log revenue."""
        raw = math.log(math.expm1(max(std, 0.1)))
        with torch.no_grad():
            self.out.bias.copy_(torch.tensor([click, conversion, mean, raw]))

    def forward(self, trunk: Tensor) -> Logits:
        """(..., I, hidden) -> (..., I)."""
        click, conversion, mean, std = self.out(trunk).unbind(-1)
        return Logits(click, conversion, mean, F.softplus(std) + 0.05)


class PositionBias(nn.Module):
    """Additive click logit of a position, 0 at position 1; known in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(MAX_POSITION + 1, 1)
        nn.init.zeros_(self.table.weight)

    def forward(self, position: Tensor) -> Tensor:
        """1-based positions (...) -> logits (...)."""
        at = torch.clamp(position, 1, MAX_POSITION)
        return (self.table(at) - self.table.weight[1]).squeeze(-1)


def log_click_and_conversion(click: Tensor, conversion: Tensor) -> Tensor:
    """log(pCTR x pCVR) from the two logits (ESMM, Ma et al., 2018)."""
    return F.logsigmoid(click) + F.logsigmoid(conversion)


def logit_of(log_probability: Tensor) -> Tensor:
    """log(p / (1 - p)) from log p; p is held below 1 - 1e-7."""
    rest = torch.clamp(1 - torch.exp(log_probability), min=1e-7)
    return log_probability - torch.log(rest)


def training_moments(features: Features, rows: Longs) -> tuple[float, float, float, float]:
    """Logit of the click rate, logit of conversions per click, mean and std of log revenue.

    Rates are smoothed by half an event; revenue is in units of the currency.
    """
    log = features.impressions
    clicks, n = float(np.sum(log.clicked[rows])), rows.size
    conversions = float(np.sum(log.clicked[rows] & log.converted[rows]))
    revenue = log.revenue[rows]
    amounts = np.log(revenue[revenue > 0] / 1e6)
    mean, std = (float(amounts.mean()), float(amounts.std())) if amounts.size else (0.0, 1.0)
    return (
        float(np.log((clicks + 0.5) / (n - clicks + 0.5))),
        float(np.log((conversions + 0.5) / (clicks - conversions + 0.5))),
        mean,
        std,
    )
