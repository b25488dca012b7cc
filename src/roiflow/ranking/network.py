"""Parts that the neural rankers share: embeddings, dense features, attention, heads.

Everything is matmul, softmax, gather and elementwise arithmetic, so it exports to ONNX.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roiflow.features.table import Features, Singles
from roiflow.ranking.examples import Examples
from roiflow.ranking.likelihood import logit_of, rate

MASKED = -1e9
MAX_SCALED = 5.0
LEAST_STD = 0.05
PRICE = "log_price"
"""The dense feature that revenue is expected to follow."""
MAX_SLOPE = 2.0
MIN_CONVERSIONS = 30


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

    (..., F) raw -> (..., (1 + T) * F): (x - mean) / std clipped to [-5, 5], and for each of T
    quantile bins how much of the bin lies below x, in [0, 1].
    """

    def __init__(self, features: int, bins: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.register_buffer("low", torch.zeros(bins, features))
        self.register_buffer("inverse_width", torch.zeros(bins, features))
        self.width = features * (1 + bins)
        self.mean: Tensor
        self.std: Tensor
        self.low: Tensor
        self.inverse_width: Tensor

    def fit(self, dense: Singles, mean: Singles, std: Singles) -> None:
        """Set the bins at quantiles of the training rows (n, F); empty bins stay 0."""
        bins = self.low.shape[0]
        self.mean.copy_(torch.from_numpy(np.array(mean, np.float32)))
        self.std.copy_(torch.from_numpy(np.array(std, np.float32)))
        edges = np.quantile(dense, np.linspace(0, 1, bins + 1), axis=0).T.astype(np.float32)
        for feature, edge in enumerate(edges):
            # Quantiles of what is mostly one value fall together: a bin of no width would divide by
            # 0.
            distinct = np.unique(edge)
            low, width = distinct[:-1], np.diff(distinct)
            self.low[: low.size, feature] = torch.from_numpy(low)
            self.inverse_width[: low.size, feature] = torch.from_numpy(1 / width)

    def forward(self, dense: Tensor) -> Tensor:
        """(..., F) -> (..., (1 + T) F), a constant to autograd."""
        # The widest activation there is: in place, because each copy costs more than the
        # arithmetic, and bins before features, because the last axis runs in vector instructions.
        out = dense.new_empty(*dense.shape[:-1], self.width)
        scaled, part = torch.split(out, [self.mean.numel(), self.low.numel()], dim=-1)
        part = part.view(*dense.shape[:-1], *self.low.shape)
        torch.sub(dense, self.mean, out=scaled).div_(self.std).clamp_(-MAX_SCALED, MAX_SCALED)
        torch.sub(dense.unsqueeze(-2), self.low, out=part)
        part.mul_(self.inverse_width).clamp_(0.0, 1.0)
        return out


class Dropout(nn.Module):
    """Each element is 0 with probability p, the others are scaled up; all stay in evaluation.

    torch's own draws a double an element, a tenth of a training step; here one draw of 64 bits
    serves four elements, and p is rounded to a multiple of 2^-16.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.cut = round(p * 2**16)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        if not self.training or self.cut == 0:
            return x
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        # Draws are signed: 2^15 lower, the cut leaves out the same share of them.
        kept = draws.view(torch.int16)[: x.numel()].view(x.shape) >= self.cut - 2**15
        return x * (kept * (2**16 / (2**16 - self.cut)))


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
    # The window is what makes one encoding serve all impressions: an event's memory depends on the
    # last `window` events alone, so it is the same wherever an encoding starts far enough before.
    # An empty column sees itself: with all masked alike, softmax would spread over what is hidden.
    at = torch.arange(width)
    back = at[:, None] - at[None, :]
    near = (back >= 0) & (back < window)
    filled = at >= width - length[:, None]
    return (near & filled[:, None, :] | (back == 0))[:, None]


class Heads(nn.Module):
    """Click, conversion and revenue from one trunk.

    Conversions are few, so log revenue starts from a line in the dense features, which is fitted
    before and stands still, and the trunk learns only what is left.
    """

    def __init__(self, hidden: int, dense: int = 0) -> None:
        super().__init__()
        self.out = nn.Linear(hidden, 4)
        # Nearly 0: the first predictions are the biases, which start at the base rates.
        nn.init.normal_(self.out.weight, std=0.01)
        self.register_buffer("revenue_slope", torch.zeros(dense))
        self.revenue_slope: Tensor

    def start(self, moments: "Moments") -> None:
        """Set the biases to base rates (logits) and the moments of log revenue."""
        # The inverse of the softplus that `forward` applies.
        raw = math.log(math.expm1(max(moments.std, 0.1)))
        biases = [moments.click, moments.conversion, moments.mean, raw]
        with torch.no_grad():
            self.out.bias.copy_(torch.tensor(biases))
            self.revenue_slope.copy_(torch.from_numpy(moments.slope))

    def forward(self, trunk: Tensor, dense: Tensor | None = None) -> Logits:
        """(..., I, hidden), raw (..., I, F) -> (..., I)."""
        click, conversion, mean, std = self.out(trunk).unbind(-1)
        if dense is not None:
            mean = mean + dense @ self.revenue_slope
        return Logits(click, conversion, mean, F.softplus(std) + LEAST_STD)


@dataclass(frozen=True)
class Moments:
    """What the heads start from."""

    click: float  # logit of the click rate
    conversion: float  # logit of conversions per click
    mean: float  # of log revenue in units of the currency, less the slope's part
    std: float
    slope: Singles  # (F,) of log revenue in the dense features; none where none are given


def training_moments(features: Features, examples: Examples, dense: int) -> Moments:
    """Of the examples (n,); a network with `dense` features gets a slope in the ad's log price.

    The slope is by least squares, within [0, MAX_SLOPE], and 0 where there are too few conversions
    to tell.
    """
    sold, clicks = examples.earned > 0, examples.clicks
    paid = examples.rows[sold]
    # Log revenue follows log price closely and conversions are too few to learn that from.
    amounts = np.log(examples.earned[sold] / 1e6)
    slope = np.zeros(dense, np.float32)
    if dense and paid.size >= MIN_CONVERSIONS and PRICE in features.dense_names:
        column = features.dense_names.index(PRICE)
        price = features.impressions.dense[paid, column].astype(np.float64)
        if price.var() > 0:
            fitted = np.mean((price - price.mean()) * amounts) / price.var()
            slope[column] = np.clip(fitted, 0.0, MAX_SLOPE)
            amounts = amounts - slope[column] * price
    mean, std = (float(amounts.mean()), float(amounts.std())) if amounts.size else (0.0, 1.0)
    return Moments(
        click=logit_of(rate(examples.examined, examples.clicked)),
        conversion=logit_of(rate(clicks.matured, clicks.converted)),
        mean=mean,
        std=std,
        slope=slope,
    )
