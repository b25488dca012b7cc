"""DIN (Zhou et al., 2018): a local activation unit weights each behaviour by the candidate.

How it differs from the paper: PReLU in place of Dice, dropout in place of mini-batch aware
regularisation, and a second head for conversion given a click. As in the paper weights are
not normalised, and behaviours know neither action nor time.
"""

import torch
from torch import Tensor, nn

from roiflow.features.table import AD_ATTRIBUTES
from roiflow.ranking.network import DenseEncoding, Dropout, Heads, IdTable, Logits
from roiflow.ranking.torch_ranker import Behaviours, Candidates, NetworkShape, TorchRanker

CATEGORY = AD_ATTRIBUTES.index("category")
UNIT, HIDDEN = 36, (80, 40)


def embedding(rows: int, dim: int) -> IdTable:
    """Small normal vectors, one a value."""
    table = IdTable(rows, dim)
    nn.init.normal_(table.weight, std=0.02)
    return table


class Din(nn.Module):
    """Embedding, activation unit, sum pooling, multi-layer perceptron."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        # Ad and category side by side have the dimension of the other rankers' ads.
        dim, sizes = shape.dim // 2, shape.sizes
        self.ad, self.category = embedding(sizes["ad"], dim), embedding(sizes["category"], dim)
        self.user = embedding(sizes["user"], dim)
        self.profile = nn.ModuleList(
            embedding(sizes[f"profile:{name}"], dim) for name in shape.profile_names
        )
        self.context = nn.ModuleList(embedding(size, dim) for size in shape.context_sizes)
        self.attributes = nn.ModuleList(embedding(size, dim) for size in shape.attribute_sizes)
        item = 2 * dim
        self.unit = nn.Sequential(nn.Linear(4 * item, UNIT), nn.PReLU(), nn.Linear(UNIT, 1))
        self.dense = DenseEncoding(shape.dense, 1)
        fields = 1 + len(self.profile) + len(self.context) + len(self.attributes)
        wide = fields * dim + 2 * item + self.dense.width
        self.layers = nn.Sequential(
            nn.Linear(wide, HIDDEN[0]),
            nn.PReLU(),
            Dropout(shape.dropout),
            nn.Linear(HIDDEN[0], HIDDEN[1]),
            nn.PReLU(),
        )
        self.heads_out = Heads(HIDDEN[1])

    def pool(self, seen: Tensor, window: Tensor, item: Tensor) -> Tensor:
        """Behaviours (R, T, e), seen (R, J, T), candidates (R, I, e) -> (R, I, e)."""
        asked = item[:, :, None].expand(-1, -1, seen.shape[1], -1)
        past = seen[:, None].expand(-1, item.shape[1], -1, -1)
        pair = torch.cat([past, asked, past - asked, past * asked], dim=-1)
        weight = self.unit(pair).squeeze(-1) * window.to(pair.dtype)
        return weight @ seen

    def forward(self, history: Behaviours, candidates: Candidates) -> Logits:
        """-> logits (R, I)."""
        wanted = candidates.ad.shape[1]
        seen = torch.cat([self.ad(history.ad), self.category(history.category)], dim=-1)
        category = candidates.attributes[..., CATEGORY]
        item = torch.cat([self.ad(candidates.ad), self.category(category)], dim=-1)
        interest = self.pool(seen, candidates.window, item)
        person = [self.user(candidates.user)]
        person += [table(candidates.profile[:, at]) for at, table in enumerate(self.profile)]
        context = [table(candidates.context[..., at]) for at, table in enumerate(self.context)]
        attributes = [
            table(candidates.attributes[..., at]) for at, table in enumerate(self.attributes)
        ]
        parts = [
            *(part[:, None].expand(-1, wanted, -1) for part in person),
            *(part.expand(-1, wanted, -1) for part in context),
            *attributes,
            item,
            interest,
            self.dense(candidates.dense),
        ]
        return self.heads_out(self.layers(torch.cat(parts, dim=-1)))


class DinRanker(TorchRanker):
    """A leaderboard baseline; its pairs of behaviour and candidate need one row an impression."""

    name = "din"
    network = Din
    impressions_per_segment = 1

    @classmethod
    def reach(cls, shape: NetworkShape) -> int:
        """No event before the H-window matters."""
        del shape
        return 0
