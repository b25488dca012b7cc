"""SASRec (Kang and McAuley, 2018): the last state of causal self-attention, dotted with the ad.

How it differs from the paper: it is trained on logged clicks and conversions of the impressions,
not on next items against sampled negatives, with one head for each outcome and a bias by ad;
absolute positions are replaced by a learned bias by distance (so that a user's sequence is encoded
once for all impressions, under the banded mask of the last H events). Like the paper's it sees the
sequence of ids and nothing else: no actions, no times, no features.
"""

import torch
from torch import Tensor, nn

from roiflow.ranking import serving_form
from roiflow.ranking.network import Dropout, Heads, Logits, attention, band, join_heads, split_heads
from roiflow.ranking.torch_ranker import Behaviours, Candidates, NetworkShape, TorchRanker


class Layer(nn.Module):
    """Self-attention and a pointwise network, each with residual, dropout and layer norm."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        dim, self.heads, self.window = shape.dim, shape.heads, shape.history_length
        self.norm, self.project = nn.LayerNorm(dim), nn.Linear(dim, 3 * dim)
        self.distance = nn.Embedding(shape.history_length, shape.heads)
        nn.init.zeros_(self.distance.weight)
        self.ffn = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)
        )
        self.dropout = Dropout(shape.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(R, T, d), (R, 1, T, T) -> (R, T, d)."""
        query, key, value = (
            split_heads(part, self.heads) for part in self.project(self.norm(x)).chunk(3, dim=-1)
        )
        at = torch.arange(x.shape[1])
        # What is outside the band is masked below and still looked up.
        back = torch.clamp(at[:, None] - at[None, :], 0, self.window - 1)
        bias = self.distance(back).permute(2, 0, 1).masked_fill(~mask, -1e9)
        x = x + self.dropout(join_heads(attention(query, key, value, bias)))
        return x + self.dropout(self.ffn(x))


class SasRec(nn.Module):
    """Sequence of ads -> state; state and candidate -> logits."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.window = shape.history_length
        self.ad = nn.Embedding(shape.sizes["ad"], shape.dim)
        nn.init.normal_(self.ad.weight, std=0.02)
        self.bias = nn.Embedding(shape.sizes["ad"], 2)
        nn.init.zeros_(self.bias.weight)
        # As many as ROSA's encoder has, whose last layer is the cross-attention.
        self.layers = nn.ModuleList(Layer(shape) for _ in range(max(shape.layers - 1, 1)))
        self.norm = nn.LayerNorm(shape.dim)
        self.empty = nn.Parameter(torch.zeros(shape.dim))
        self.scale = nn.Linear(shape.dim, 2 * shape.dim)
        self.heads_out = Heads(1)
        self.dropout = Dropout(shape.dropout)

    def forward(self, history: Behaviours, candidates: Candidates) -> Logits:
        """-> logits (R, I)."""
        x = self.dropout(self.ad(history.ad))
        mask = band(history.length, x.shape[1], self.window)
        for layer in self.layers:
            x = layer(x, mask)
        # One state more than events, which who has seen nothing gets.
        states = torch.cat([self.norm(x), self.empty.expand(x.shape[0], 1, -1)], dim=1)
        last = newest(candidates.window)
        state = torch.gather(states, 1, last.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        item = self.ad(candidates.ad)
        click, conversion = (
            (part * item).sum(-1) * item.shape[-1] ** -0.5
            for part in self.scale(state).chunk(2, dim=-1)
        )
        # Of a trunk that is 0: the biases alone, which are the base rates.
        base = self.heads_out(torch.zeros_like(click).unsqueeze(-1))
        bias = self.bias(candidates.ad)
        return Logits(
            base.click + click + bias[..., 0],
            base.conversion + conversion + bias[..., 1],
            base.revenue_mean,
            base.revenue_std,
        )


def newest(window: Tensor) -> Tensor:
    """Column of the newest event seen, T where none is: (R, J, T) -> (R, J)."""
    width = window.shape[-1]
    at = torch.where(window, torch.arange(width), torch.full((), -1)).amax(-1)
    return torch.where(at < 0, torch.full_like(at, width), at)


class SasRecRanker(TorchRanker):
    """A leaderboard baseline."""

    name = "sasrec"
    network = SasRec

    @classmethod
    def reach(cls, shape: NetworkShape) -> int:
        """Events before the H-window: the state of the newest event sees the layers' windows."""
        return (
            serving_form.encode_length(max(shape.layers - 1, 1), shape.history_length)
            - shape.history_length
        )
