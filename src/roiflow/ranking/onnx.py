"""The ranker's serving form as ONNX: equal weights give equal bytes, whatever the folder.

Both graphs are written here, not traced from rosa.py: torch's exporter takes ten seconds for what
depends on the architecture alone. So the network stands twice, here without what only training
needs (dropout, several requests of a user). That both are one function is not left to
care: the stage `export` compares them on the test week's candidates and fails where they differ.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from roiflow.features.table import AD_ATTRIBUTES, CONTEXT
from roiflow.ranking.calibrate import Calibration
from roiflow.ranking.graph import Graph, Value
from roiflow.ranking.network import LEAST_STD, MASKED, MAX_SCALED
from roiflow.ranking.rosa import CATEGORY, MAX_IMPORTANCE, RosaRanker
from roiflow.ranking.serving_form import ENCODER_OUTPUT, SCORER_OUTPUT
from roiflow.ranking.torch_ranker import MAX_LOG_REVENUE, Calibrator, NetworkShape

BATCH, CANDIDATES, EVENTS = "requests", "candidates", "events"
"""The sizes that are free; of events, up to those that the encoder reads."""


def export(ranker: RosaRanker) -> tuple[bytes, bytes]:
    """The user encoder and the scorer, as ONNX; both take any number of requests and candidates."""
    return encoder(ranker), scorer(ranker)


@dataclass(frozen=True)
class Network:
    """A graph in the making, and the network's layers by their names in torch."""

    graph: Graph
    arrays: dict[str, NDArray[Any]]
    shape: NetworkShape
    width: int  # L

    @classmethod
    def of(cls, ranker: RosaRanker) -> "Network":
        """An empty graph beside the weights."""
        arrays = {name: value.numpy() for name, value in ranker.net.state_dict().items()}
        return cls(Graph(), arrays, ranker.shape, ranker.encode_length)

    @property
    def memory(self) -> int:
        """M: keys and values, and two importances of the action for each head."""
        return 2 * self.shape.dim + 2 * self.shape.heads

    def embedding(self, name: str, index: Value) -> Value:
        """(...) -> (..., d)."""
        return self.graph.gather(self.arrays[f"{name}.weight"], index)

    def linear(self, name: str, x: Value) -> Value:
        """x W^T + b, or without b where the layer has none."""
        # Transposed while it is written: a weight is a constant, so no run does it.
        product = x @ self.arrays[f"{name}.weight"].T
        bias = self.arrays.get(f"{name}.bias")
        return product if bias is None else product + bias

    def norm(self, name: str, x: Value) -> Value:
        """LayerNorm over the last axis."""
        scale, bias = self.arrays[f"{name}.weight"], self.arrays[f"{name}.bias"]
        return self.graph.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-5)

    def decay(self, name: str, log_hours: Value) -> Value:
        """Decay: log(1 + hours) (B, N, L) -> bias (B, heads, N, L)."""
        # The rate hangs on the weights alone: softplus is worked out while the graph is written.
        rate = F.softplus(torch.from_numpy(self.arrays[f"{name}.raw"])).numpy()
        return log_hours.unsqueeze(1) * -rate[:, None, None]

    def split_heads(self, x: Value) -> Value:
        """(B, N, d) -> (B, heads, N, d / heads)."""
        heads = self.shape.heads
        return x.reshape(0, 0, heads, self.shape.dim // heads).permute(0, 2, 1, 3)

    def join_heads(self, x: Value) -> Value:
        """(B, heads, N, d / heads) -> (B, N, d)."""
        return x.permute(0, 2, 1, 3).reshape(0, 0, self.shape.dim)

    def match(self, query: Value, key: Value) -> Value:
        """q k^T / sqrt(d): (B, h, N, e), (B, h, M, e) -> (B, h, N, M)."""
        size = self.shape.dim // self.shape.heads
        return query @ key.permute(0, 1, 3, 2) * size**-0.5


def encoder(ranker: RosaRanker) -> bytes:
    """Rosa.encode."""
    net = Network.of(ranker)
    graph = net.graph
    ad, category, action = (
        graph.input(f"history_{name}", np.int64, BATCH, EVENTS)
        for name in ("ad", "category", "action")
    )
    hours = graph.input("history_hours", np.float32, BATCH, EVENTS)
    length = graph.input("length", np.int64, BATCH)
    x = net.embedding("ad", ad) + net.arrays["ad_base"]
    x = x + net.embedding("category", category) + net.embedding("action", action)
    gap = (hours.unsqueeze(1) - hours.unsqueeze(2)).clip(0.0)
    log_gap, mask = (gap + 1.0).log(), band(net, length, hours.sizes(1, 2))
    for layer in range(net.shape.layers - 1):
        x = encoder_layer(net, f"layers.{layer}", x, action, log_gap, mask)
    memory = net.linear("keys_values", net.norm("memory_norm", x))
    memory = graph.concat(memory, net.embedding("importance", action))
    graph.output(ENCODER_OUTPUT, memory, BATCH, EVENTS, net.memory)
    return graph.to_bytes()


def band(net: Network, length: Value, events: Value) -> Value:
    """network.band, (B,) -> (B, 1, L, L): a constant, but for how many columns are filled."""
    at = np.arange(net.width)
    back = at[:, None] - at[None, :]
    corner = net.graph.concat(events, events)
    # How many columns there are is known only in a run: the masks are made at full width and their
    # corner is cut. Any corner is right, since all that counts is how far apart two columns are.
    near, own = (
        net.graph.node("Slice", mask, [0, 0], corner, [0, 1])
        for mask in ((back >= 0) & (back < net.shape.history_length), back == 0)
    )
    return (filled(net, length, events).unsqueeze(1) & near | own).unsqueeze(1)


def filled(net: Network, length: Value, events: Value) -> Value:
    """Which of L columns hold the last `length` events: (B,), (1,) with L -> (B, L)."""
    column = net.graph.node("Slice", np.arange(net.width), [0], events, [0])
    return (events - length.unsqueeze(1)).at_most(column)


def encoder_layer(
    net: Network, name: str, x: Value, action: Value, log_gap: Value, mask: Value
) -> Value:
    """EncoderLayer: (B, L, d), (B, L), (B, L, L), (B, 1, L, L) -> (B, L, d)."""
    projected = net.linear(f"{name}.project", net.norm(f"{name}.norm", x))
    query, key, value = map(
        net.split_heads, net.graph.nodes("Split", 3, projected, axis=-1, num_outputs=3)
    )
    importance = net.embedding(f"{name}.importance", action).permute(0, 2, 1).unsqueeze(2)
    bias = net.decay(f"{name}.decay", log_gap) + importance
    bias = net.graph.node("Where", mask, bias, MASKED)
    weight = (net.match(query, key) + bias).softmax()
    x = x + net.linear(f"{name}.out", net.join_heads(weight @ value))
    hidden = net.linear(f"{name}.ffn.1", net.norm(f"{name}.ffn.0", x)).relu()
    return x + net.linear(f"{name}.ffn.3", hidden)


def scorer(ranker: RosaRanker) -> bytes:
    """Rosa.score of one request's candidates, calibrated."""
    net = Network.of(ranker)
    graph, shape = net.graph, net.shape
    memory = graph.input("memory", np.float32, BATCH, EVENTS, net.memory)
    history = History(
        graph.input("history_ad", np.int64, BATCH, EVENTS),
        graph.input("history_category", np.int64, BATCH, EVENTS),
        graph.input("elapsed_hours", np.float32, BATCH, EVENTS),
        graph.input("length", np.int64, BATCH),
    )
    user = graph.input("user", np.int64, BATCH)
    profile = graph.input("profile", np.int64, BATCH, len(shape.profile_names))
    context = graph.input("context", np.int64, BATCH, len(CONTEXT))
    ad = graph.input("ad", np.int64, BATCH, CANDIDATES)
    attributes = graph.input("attributes", np.int64, BATCH, CANDIDATES, len(AD_ATTRIBUTES))
    dense = graph.input("dense", np.float32, BATCH, CANDIDATES, shape.dense)

    candidate = candidate_vector(net, ad, attributes)
    attended, counts = attend(net, memory, history, candidate, (ad, attributes.at(CATEGORY)))
    person = person_vector(net, user, profile, context)
    pair = graph.concat(attended, attended * candidate, person * candidate, counts)
    trunk = net.linear("from_user", person) + net.linear("from_candidate", candidate)
    trunk = trunk + net.linear("from_pair", pair)
    trunk = trunk + net.linear("from_dense", dense_encoding(net, dense))
    trunk = net.linear("trunk.2", trunk.relu()).relu()
    out = net.linear("heads_out.out", trunk)
    revenue = out.at(2) + dense @ net.arrays["heads_out.revenue_slope"]
    std = graph.node("Softplus", out.at(3)) + LEAST_STD
    predictions = calibrated(ranker.calibrator, out.at(0), out.at(1), revenue, std)
    graph.output(SCORER_OUTPUT, predictions, BATCH, CANDIDATES, 3)
    return graph.to_bytes()


@dataclass(frozen=True)
class History:
    """What the scorer reads of a user's events beside their memory."""

    ad: Value  # (B, L)
    category: Value  # (B, L)
    elapsed: Value  # (B, L) hours
    length: Value  # (B,)


def candidate_vector(net: Network, ad: Value, attributes: Value) -> Value:
    """Rosa.candidate_vector: (B, K), (B, K, 5) -> (B, K, d)."""
    vector = net.embedding("ad", ad) + net.arrays["ad_base"]
    vector = vector + net.embedding("category", attributes.at(CATEGORY))
    others = [at for at in range(len(AD_ATTRIBUTES)) if at != CATEGORY]
    for number, at in enumerate(others):
        vector = vector + net.embedding(f"attributes.{number}", attributes.at(at))
    return vector


def person_vector(net: Network, user: Value, profile: Value, context: Value) -> Value:
    """Rosa.user_vector and the request's context: (B,), (B, P), (B, 4) -> (B, 1, d)."""
    vector = net.embedding("user", user) + net.arrays["user_base"]
    for at in range(len(net.shape.profile_names)):
        vector = vector + net.embedding(f"profile.{at}", profile.at(at))
    for at in range(len(CONTEXT)):
        vector = vector + net.embedding(f"context.{at}", context.at(at))
    return vector.unsqueeze(1)


def dense_encoding(net: Network, dense: Value) -> Value:
    """DenseEncoding: (B, K, F) -> (B, K, (1 + T) F)."""
    mean, std, low, inverse = (
        net.arrays[f"dense.{name}"] for name in ("mean", "std", "low", "inverse_width")
    )
    scaled = ((dense - mean) / std).clip(-MAX_SCALED, MAX_SCALED)
    part = ((dense.unsqueeze(2) - low) * inverse).clip(0.0, 1.0)
    return net.graph.concat(scaled, part.reshape(0, 0, low.size))


def attend(
    net: Network, memory: Value, history: History, candidate: Value, ids: tuple[Value, Value]
) -> tuple[Value, Value]:
    """Rosa.attend; `ids`: each candidate's ad and category, (B, K)."""
    dim, heads, arrays = net.shape.dim, net.shape.heads, net.arrays
    key, value = net.split_heads(memory.part(0, dim)), net.split_heads(memory.part(dim, 2 * dim))
    recency, weight = (
        memory.part(at, at + heads).permute(0, 2, 1).unsqueeze(2)
        for at in (2 * dim, 2 * dim + heads)
    )
    same_ad, same_category = same(ids[0], history.ad), same(ids[1], history.category)
    log_elapsed = (history.elapsed + 1.0).log().unsqueeze(1)
    # However many events the encoder was given, candidates look at the last H.
    last = history.length.clip(None, [net.shape.history_length])
    window = filled(net, last, history.elapsed.sizes(1, 2)).unsqueeze(1).unsqueeze(1)

    bias = net.graph.node("Where", window, net.decay("decay", log_elapsed) + recency, MASKED)
    of_ad, of_category = arrays["match"][..., None, None]
    bias = bias + same_ad * of_ad + same_category * of_category
    scores = net.match(net.split_heads(net.linear("query", candidate)), key) + bias
    # "Nothing" is one column more, so its score must be as large as the others in all axes but one.
    sizes = net.graph.concat(scores.sizes(0, 3), [1])
    nothing = net.graph.node("Expand", arrays["nothing_key"][:, None, None], sizes)
    sizes = net.graph.concat(value.sizes(0, 1), [1, 1, 1])
    blank = net.graph.node("Expand", arrays["nothing_value"].reshape(1, heads, 1, -1), sizes)
    attention = net.graph.concat(scores, nothing).softmax()
    attended = attention @ net.graph.node("Concat", value, blank, axis=2)

    weight = net.decay("count_decay", log_elapsed) + weight.clip(None, MAX_IMPORTANCE)
    weight = (weight.exp() * window.number()).permute(0, 1, 3, 2)
    # Flags of 0 and 1 times weights are sums: two products of matrices, and nothing of the size
    # candidates x heads x events is held for them.
    total = net.graph.node("ReduceSum", weight, [2], keepdims=1)
    total = net.graph.node("Expand", total, net.graph.concat([1, 1], candidate.sizes(1, 2), [1]))
    parts = (total, same_category @ weight, same_ad @ weight)
    counts = net.graph.node("Concat", *parts, axis=1).reshape(0, 3 * heads, -1)
    return net.join_heads(attended), (counts + 1.0).log().permute(0, 2, 1)


def same(candidate: Value, history: Value) -> Value:
    """rosa.same: (B, K), (B, L) -> (B, 1, K, L)."""
    candidate = candidate.unsqueeze(2)
    equal = candidate.equals(history.unsqueeze(1)) & candidate.above(0)
    return equal.unsqueeze(1).number()


def calibrated(
    calibrator: Calibrator, click: Value, conversion: Value, revenue: Value, std: Value
) -> Value:
    """Calibrator: logits (B, K) and the moments of log revenue (B, K) -> (B, K, 3)."""
    p_click = mapped(click, calibrator.click).sigmoid()
    p_both = p_click * mapped(conversion, calibrator.conversion).sigmoid()
    expected = (revenue + std * std * 0.5).clip(None, MAX_LOG_REVENUE).exp()
    outputs = (p_click, p_both, expected * calibrator.revenue_scale)
    return click.graph.concat(*(each.unsqueeze(-1) for each in outputs))


def mapped(logit: Value, map_: Calibration) -> Value:
    """Calibration.apply."""
    if not map_.knots:
        return logit * map_.slopes[0] + map_.intercept
    total = logit.clip(None, map_.knots[0]) * map_.slopes[0] + map_.intercept
    for low, high, slope in zip(map_.knots[:-1], map_.knots[1:], map_.slopes[1:-1], strict=True):
        total = total + (logit.clip(low, high) - low) * slope
    return total + (logit - map_.knots[-1]).clip(0.0) * map_.slopes[-1]
