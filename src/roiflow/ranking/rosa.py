"""The ROSA ranker: action- and time-aware self-attention over behaviours, candidates as queries.

How it differs from ROSA-Rec: each user's sequence is encoded once for all impressions under a
causal banded mask (window H) instead of once per impression, so decay relative to the impression
lives in the cross-attention and the encoder knows only gaps between events, no absolute positions;
conversion is pCTR x pCVR, the second learnt from clicked rows alone (from all, as in ESMM, it was
worse by 0.005 nats a click), and revenue a log-normal beside it; next to the attended history,
whose softmax forgets how much there was, the candidate also gets the decayed, action-weighted
counts of the history's events, of those of its category and of its own.

`layers` counts attention layers, the cross-attention is the last of them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roiflow.features.table import AD_ATTRIBUTES
from roiflow.ranking.network import (
    MASKED,
    DenseEncoding,
    Dropout,
    Heads,
    Logits,
    attention,
    band,
    deviations,
    join_heads,
    small_embedding,
    split_heads,
)
from roiflow.ranking.torch_ranker import (
    Behaviours,
    Candidates,
    NetworkShape,
    TorchRanker,
)

CATEGORY = AD_ATTRIBUTES.index("category")
MAX_IMPORTANCE = 5.0
"""Of an event in the counts, as a logarithm: no action counts more than exp(5) = 148 times."""


class Decay(nn.Module):
    """-rate x log(1 + hours) for each head, rate >= 0 learned."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        # Heads start apart, at rates from 0.13 to 0.69: some for what is near, some for all.
        self.raw = nn.Parameter(torch.linspace(-2.0, 0.0, heads))

    def forward(self, log_hours: Tensor) -> Tensor:
        """log(1 + hours) (R, N, T) -> bias (R, heads, N, T)."""
        # Heads before the events: the last axis is the one that runs in vector instructions.
        return log_hours.unsqueeze(1) * -F.softplus(self.raw)[:, None, None]


class EncoderLayer(nn.Module):
    """Pre-norm self-attention with importance of the seen action and decay of the gap, then FFN."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        dim, self.heads = shape.dim, shape.heads
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        # 0: no action counts more than another before the log has said so.
        self.importance = nn.Embedding(shape.sizes["action"], shape.heads)
        nn.init.zeros_(self.importance.weight)
        self.decay = Decay(shape.heads)
        self.ffn = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim)
        )
        self.dropout = Dropout(shape.dropout)

    def forward(self, x: Tensor, action: Tensor, log_gap: Tensor, mask: Tensor) -> Tensor:
        """(R, T, d), (R, T), (R, T, T) log(1 + hours), (R, 1, T, T) -> (R, T, d)."""
        query, key, value = (
            split_heads(part, self.heads) for part in self.project(self.norm(x)).chunk(3, dim=-1)
        )
        bias = self.decay(log_gap) + self.importance(action).transpose(1, 2).unsqueeze(2)
        bias = torch.where(mask, bias, MASKED)
        x = x + self.dropout(self.out(join_heads(attention(query, key, value, bias))))
        return x + self.dropout(self.ffn(x))


def same(candidate: Tensor, history: Tensor) -> Tensor:
    """1.0 where an event is of the candidate's own kind: (R, I), (R, T) -> (R, 1, I, T).

    Index 0 is no kind: what is out of vocabulary is not all alike.
    """
    equal = (candidate[:, :, None] == history[:, None, :]) & (candidate[:, :, None] > 0)
    return equal.unsqueeze(1).to(torch.float32)


class Rosa(nn.Module):
    """Behaviours -> memory; memory and candidates -> logits."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        dim, heads, sizes = shape.dim, shape.heads, shape.sizes
        self.dim, self.heads, self.window = dim, heads, shape.history_length
        # An id's row is its deviation from one shared vector, so that an ad or user never seen is
        # an average one.
        self.ad = deviations(sizes["ad"], dim)
        self.ad_base = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.category = small_embedding(sizes["category"], dim)
        self.action = small_embedding(sizes["action"], dim)
        self.user = deviations(sizes["user"], dim)
        self.user_base = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.profile = nn.ModuleList(
            deviations(sizes[f"profile:{name}"], dim) for name in shape.profile_names
        )
        self.context = nn.ModuleList(deviations(size, dim) for size in shape.context_sizes)
        self.attributes = nn.ModuleList(
            deviations(sizes[name], dim) for name in AD_ATTRIBUTES if name != "category"
        )
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.layers - 1))
        self.memory_norm = nn.LayerNorm(dim)
        self.keys_values = nn.Linear(dim, 2 * dim)
        self.importance = nn.Embedding(sizes["action"], 2 * heads)
        nn.init.zeros_(self.importance.weight)
        self.decay, self.count_decay = Decay(heads), Decay(heads)
        self.query = nn.Linear(dim, dim)
        self.match = nn.Parameter(torch.zeros(2, heads))
        self.nothing_key = nn.Parameter(torch.zeros(heads))
        self.nothing_value = nn.Parameter(torch.zeros(dim))
        self.dense = DenseEncoding(shape.dense, shape.bins)
        hidden = 2 * dim
        self.from_user = nn.Linear(dim, hidden)
        self.from_candidate = nn.Linear(dim, hidden, bias=False)
        self.from_pair = nn.Linear(3 * dim + 3 * heads, hidden, bias=False)
        self.from_dense = nn.Linear(self.dense.width, hidden, bias=False)
        self.trunk = nn.Sequential(
            nn.ReLU(),
            Dropout(shape.dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            Dropout(shape.dropout),
        )
        self.heads_out = Heads(hidden, shape.dense)
        self.dropout = Dropout(shape.dropout)

    def encode(self, history: Behaviours) -> Tensor:
        """Behaviours (R, T) right-aligned -> memory (R, T, 2 d + 2 heads).

        A memory row holds the event's keys, values and the importances of its action.
        """
        action, hours = history.action, history.hours
        x = self.ad(history.ad) + self.ad_base + self.category(history.category)
        x = x + self.action(action)
        # Events stand in the order in which they became known: one that happened later may come
        # before, and then has no negative gap.
        log_gap = torch.log(1 + torch.clamp(hours[:, None, :] - hours[:, :, None], min=0.0))
        mask = band(history.length, action.shape[1], self.window)
        for layer in self.layers:
            x = layer(x, action, log_gap, mask)
        memory = self.keys_values(self.memory_norm(x))
        return torch.cat([memory, self.importance(action)], dim=-1)

    def user_vector(self, user: Tensor, profile: Tensor) -> Tensor:
        """(R,), (R, P) -> (R, d)."""
        # The id alone is dropped: profile and context must do without it, as for a new user.
        vector = self.user_base + self.dropout(self.user(user))
        for at, table in enumerate(self.profile):
            vector = vector + table(profile[:, at])
        return vector

    def candidate_vector(self, ad: Tensor, attributes: Tensor) -> Tensor:
        """(R, I), (R, I, 5) -> (R, I, d)."""
        vector = self.ad_base + self.dropout(self.ad(ad)) + self.category(attributes[..., CATEGORY])
        others = [at for at in range(len(AD_ATTRIBUTES)) if at != CATEGORY]
        for at, table in zip(others, self.attributes, strict=True):
            vector = vector + table(attributes[..., at])
        return vector

    def attend(
        self, memory: Tensor, candidates: Candidates, candidate: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Candidates (R, I, d) look into memory (R, T, M).

        -> attended (R, I, d), counts (R, I, 3 heads): log(1 + decayed and weighted number) of all
        events, of those of the candidate's category, of those of the candidate itself.
        """
        log_elapsed, window = torch.log(1 + candidates.elapsed), candidates.window.unsqueeze(1)
        dim, heads = self.dim, self.heads
        key, value = (split_heads(memory[..., at : at + dim], heads) for at in (0, dim))
        recency, weight = memory[..., 2 * dim :].transpose(1, 2).unsqueeze(2).chunk(2, dim=1)
        same_ad = same(candidates.ad, candidates.history_ad)
        same_category = same(candidates.attributes[..., CATEGORY], candidates.history_category)

        # A masked event gets MASKED plus what follows, and softmax makes it an exact 0.
        bias = torch.where(window, self.decay(log_elapsed) + recency, MASKED)
        of_ad, of_category = self.match[..., None, None]
        bias = bias + same_ad * of_ad + same_category * of_category
        query = split_heads(self.query(candidate), heads)
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + bias
        # One more column to look at: nothing, with a score and a value of each head.
        nothing = self.nothing_key[:, None, None].expand(*scores.shape[:3], 1)
        blank = self.nothing_value.reshape(1, heads, 1, -1).expand(value.shape[0], -1, -1, -1)
        attention = torch.softmax(torch.cat([scores, nothing], dim=-1), dim=-1)
        attended = join_heads(attention @ torch.cat([value, blank], dim=2))

        weight = torch.clamp(weight, max=MAX_IMPORTANCE) + self.count_decay(log_elapsed)
        weight = torch.exp(weight) * window
        counts = [weight.sum(-1).expand(-1, -1, candidate.shape[1])]
        for flag in (same_category, same_ad):
            if weight.shape[2] == 1:  # one request for all candidates: no (R, heads, I, T) is made
                counts.append((flag @ weight.transpose(-1, -2)).squeeze(-1))
            else:
                counts.append((flag * weight).sum(-1))
        return attended, torch.log(1 + torch.cat(counts, dim=1)).transpose(1, 2)

    def score(self, memory: Tensor, candidates: Candidates) -> Logits:
        """Memory (R, T, M) and candidates -> logits (R, I)."""
        candidate = self.candidate_vector(candidates.ad, candidates.attributes)
        attended, counts = self.attend(memory, candidates, candidate)
        person = self.user_vector(candidates.user, candidates.profile)[:, None]
        for at, table in enumerate(self.context):
            person = person + table(candidates.context[..., at])
        pair = torch.cat([attended, attended * candidate, person * candidate, counts], dim=-1)
        # One layer over the four parts side by side, written as a sum: what depends on the request
        # alone is worked out once and not for every candidate.
        trunk = (
            self.from_user(person)
            + self.from_candidate(candidate)
            + self.from_pair(pair)
            + self.from_dense(self.dense(candidates.dense))
        )
        return self.heads_out(self.trunk(trunk), candidates.dense)

    def forward(self, history: Behaviours, candidates: Candidates) -> Logits:
        """-> logits (R, I)."""
        return self.score(self.encode(history), candidates)


class RosaRanker(TorchRanker):
    """The ranker that is shipped."""

    name = "rosa"
    network = Rosa
