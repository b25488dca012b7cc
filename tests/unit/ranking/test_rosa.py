"""ROSA: exactness of the shared encoding, of serving, and recovery of planted truths."""

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from roiflow.data.split import TEST, TRAIN
from roiflow.features.table import Features, Requests
from roiflow.params import RefitParams
from roiflow.ranking import packing, serving_form
from roiflow.ranking.examples import Examples
from roiflow.ranking.likelihood import rate
from roiflow.ranking.metrics import auc, log_loss
from roiflow.ranking.network import DenseEncoding, Heads, Logits
from roiflow.ranking.rosa import CATEGORY, Rosa, RosaRanker
from roiflow.ranking.torch_ranker import tensors
from roiflow.ranking.train import fit, go_on, revenue_loss, start
from tests.unit.ranking.worlds import (
    PARAMS,
    World,
    build,
    entropy,
    known_at_once,
    labels_of,
    permuted,
    requests_of,
)

DEEP = PARAMS.model_copy(update={"layers": 3, "epochs": 1})


@cache
def world() -> World:
    return build(users=30, per_user=20, behaviours=60, history_length=8)


@cache
def ranker() -> RosaRanker:
    """Three attention layers, briefly trained: every parameter is away from its start."""
    trained, _ = fit(RosaRanker, world().features, world().labels, DEEP)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trained.net.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return trained


def reference_attention(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, heads: int
) -> Tensor:
    """One query (d,) over (m, d), head by head."""
    size = query.shape[0] // heads
    out = []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        score = keys[:, part] @ query[part] / math.sqrt(size) + bias[:, h]
        out.append(torch.softmax(score, 0) @ values[:, part])
    return torch.cat(out)


def decay(part: Any, hours: Tensor) -> Tensor:
    """(m,) -> (m, heads)."""
    return -torch.log(1 + hours)[:, None] * F.softplus(part.raw)


def reference_logits(net: Any, features: Features, row: int) -> Tensor:
    """One impression, written out: every event attends to its own last H events, one by one."""
    log, events = features.impressions, features.events
    user, end, heads, window = int(log.user[row]), int(log.history_end[row]), net.heads, net.window
    first = int(events.offsets[user])
    action = torch.from_numpy(events.action[first:end].astype(np.int64))
    ad = torch.from_numpy(events.ad[first:end].astype(np.int64))
    category = torch.from_numpy(events.category[first:end].astype(np.int64))
    ticks = events.event_time[first:end] // serving_form.MICROS_PER_TICK
    x = net.ad(ad) + net.ad_base + net.category(category) + net.action(action)
    for layer in net.layers:
        q, k, v = layer.project(layer.norm(x)).chunk(3, dim=-1)
        rows = []
        for i in range(x.shape[0]):
            seen = slice(max(0, i - window + 1), i + 1)
            hours = torch.tensor(np.maximum(ticks[i] - ticks[seen], 0) / 1024).float()
            bias = decay(layer.decay, hours) + layer.importance(action[seen])
            rows.append(reference_attention(q[i], k[seen], v[seen], bias, heads))
        x = x + layer.out(torch.stack(rows)) if rows else x
        x = x + layer.ffn(x)
    memory = net.keys_values(net.memory_norm(x))[-window:]
    ad, category, action = ad[-window:], category[-window:], action[-window:]
    now = log.event_time[row] // serving_form.MICROS_PER_TICK
    hours = torch.tensor((now - ticks[-window:]) / 1024).float()
    shown = torch.tensor([[int(log.ad[row])]])
    attributes = torch.from_numpy(features.attributes[log.ad[row]].astype(np.int64))[None, None]
    candidate = net.candidate_vector(shown, attributes)[0, 0]
    same_ad = (ad == shown[0, 0]) & (shown[0, 0] > 0)
    same_category = (category == attributes[0, 0, CATEGORY]) & (category > 0)
    same = torch.stack([same_ad, same_category], 1).float()
    importance = net.importance(action)
    bias = decay(net.decay, hours) + importance[:, :heads] + same @ net.match
    keys = torch.cat([memory[:, : net.dim], torch.zeros(1, net.dim)])
    values = torch.cat([memory[:, net.dim :], net.nothing_value[None]])
    attended = reference_attention(
        net.query(candidate), keys, values, torch.cat([bias, net.nothing_key[None]]), heads
    )
    weight = torch.exp(decay(net.count_decay, hours) + importance[:, heads:])
    sums = [
        (weight * flag.float()[:, None]).sum(0)
        for flag in (torch.ones_like(same_ad), same_category, same_ad)
    ]
    person = net.user_vector(
        torch.tensor([user]), torch.from_numpy(features.profile[[user]].astype(np.int64))
    )[0]
    for at, table in enumerate(net.context):
        person = person + table(torch.tensor(int(log.context[row, at])))
    pair = torch.cat(
        [attended, attended * candidate, person * candidate, torch.log(1 + torch.cat(sums))]
    )
    trunk = net.from_user(person) + net.from_candidate(candidate) + net.from_pair(pair)
    trunk = trunk + net.from_dense(net.dense(torch.from_numpy(log.dense[row])))
    return torch.stack(list(vars(net.heads_out(net.trunk(trunk))).values()))


def test_shared_encoding_equals_the_written_out_reference() -> None:
    features, trained = world().features, ranker()
    assert isinstance(trained.net, Rosa)
    rows = features.rows(TEST)[::4]
    lengths = (features.impressions.history_end - features.impressions.history_start)[rows]
    assert (lengths.min(), lengths.max()) == (0, 8)
    logits = trained.logits(features, rows)
    with torch.inference_mode():
        for at, row in enumerate(rows.tolist()):
            expected = reference_logits(trained.net, features, row)
            found = torch.stack([part[at] for part in vars(logits).values()])
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_shared_encoding_equals_one_padded_row_for_each_impression() -> None:
    features, trained = world().features, ranker()
    rows = np.arange(features.impressions.user.size)
    shared = trained.logits(features, rows)
    sizes, reach = trained.shape.index_sizes, trained.reach(trained.shape)
    segments = packing.cut(features, rows, reach, cap=1)
    with torch.inference_mode():
        for batch in packing.batches(features, segments, sizes, 4000):
            alone = trained.net(*tensors(batch))
            torch.testing.assert_close(
                alone.click[:, 0], shared.click[batch.row[:, 0]], atol=1e-5, rtol=1e-5
            )


def logged_scores(trained: RosaRanker) -> tuple[np.ndarray, np.ndarray]:
    features = world().features
    rows = features.rows(TEST)
    served = trained.score(features, requests_of(features, rows))
    logged = trained.predict(features, rows)
    return (
        np.stack([served.click[:, 0], served.conversion[:, 0], served.revenue[:, 0] / 1e6]),
        np.stack([logged.click, logged.conversion, logged.revenue / 1e6]),
    )


def test_serving_predicts_what_training_predicted() -> None:
    served, logged = logged_scores(ranker())
    np.testing.assert_allclose(served, logged, atol=1e-5, rtol=1e-5)


def test_serving_needs_every_event_of_its_encode_length(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranker().encode_length == 3 * 7 + 1
    monkeypatch.setattr(RosaRanker, "encode_length", 8)
    served, logged = logged_scores(ranker())
    assert np.abs(served - logged).max() > 1e-3


def test_events_not_yet_known_change_nothing() -> None:
    features, trained = world().features, ranker()
    rows = features.rows(TEST)[:40]
    log, events = features.impressions, features.events
    cut = log.event_time[rows].min()
    later = events.known_time >= cut
    ad = np.where(later, 1, events.ad).astype(np.int32)
    action = np.where(later, 2, events.action).astype(np.int32)
    other = replace(features, events=replace(events, ad=ad, action=action))
    early = np.flatnonzero(log.event_time <= cut)
    before, after = trained.predict(features, early), trained.predict(other, early)
    np.testing.assert_array_equal(before.click, after.click)


def test_candidates_in_another_order_have_their_scores_in_that_order() -> None:
    features, trained = world().features, ranker()
    requests = requests_of(features, features.rows(TEST)[:30])
    order = np.array([3, 0, 4, 2, 1])
    plain = trained.score(features, requests)
    moved = trained.score(features, permuted(requests, order))
    np.testing.assert_allclose(moved.click, plain.click[:, order], atol=1e-6)
    np.testing.assert_allclose(moved.conversion, plain.conversion[:, order], atol=1e-6)


def test_an_ad_newer_than_the_model_scores_as_out_of_vocabulary() -> None:
    features, trained = world().features, ranker()
    requests = requests_of(features, features.rows(TEST)[:5])
    newer = replace(requests, ad=np.full_like(requests.ad, 12))
    attributes = np.vstack([features.attributes, features.attributes[:1]])
    table = replace(features, attributes=attributes)
    unknown = replace(requests, ad=np.zeros_like(requests.ad))
    np.testing.assert_array_equal(
        trained.score(table, newer).click, trained.score(table, unknown).click
    )


def test_importance_and_decay_of_a_planted_world_are_recovered() -> None:
    planted = build(users=250, per_user=60, behaviours=40, history_length=12, history_effect=2.5)
    features, log = planted.features, planted.features.impressions
    params = PARAMS.model_copy(update={"epochs": 8, "patience": 8})
    trained, _ = fit(RosaRanker, features, planted.labels, params)
    assert isinstance(trained.net, Rosa)
    rows = features.rows(TEST)
    found = trained.predict(features, rows, logged_position=True)
    truth = entropy(planted.click[rows])
    base = entropy(np.full(rows.size, log.clicked[rows].mean()))
    loss = log_loss(found.click, log.clicked[rows])
    assert loss - truth < 0.25 * (base - truth)
    assert auc(found.click, log.clicked[rows]) > auc(planted.click[rows], log.clicked[rows]) - 0.03
    assert found.click.mean() / log.clicked[rows].mean() == pytest.approx(1, abs=0.1)

    # One event of the candidate's category before the request, by action and by age.
    def click(action: int, hours: float) -> float:
        return _one_event(trained, features, action, hours)

    assert click(3, 1.0) > click(1, 1.0) + 0.05
    assert click(3, 1.0) > click(3, 24.0) > click(3, 240.0)


def _one_event(trained: RosaRanker, features: Features, action: int, hours: float) -> float:
    events, at = features.events, 10**15
    single = replace(
        events,
        offsets=np.concatenate([np.zeros(2, np.int64), np.ones(events.offsets.size - 2, np.int64)]),
        ad=np.array([2], np.int32),
        category=features.attributes[[2], 2],
        action=np.array([action], np.int32),
        event_time=np.array([at - int(hours * 3.6e9)]),
        known_time=np.array([at - int(hours * 3.6e9)]),
    )
    candidates = np.array([[6]], np.int32)
    assert features.attributes[6, 2] == features.attributes[2, 2]
    request = Requests(
        np.zeros(1, np.int64),
        np.ones(1, np.int32),
        np.array([at]),
        np.zeros(1, np.int64),
        np.ones(1, np.int64),
        np.zeros((1, 4), np.int32),
        candidates,
        np.ones((1, 1), np.int64),
        np.ones((1, 1), np.int64),
        features.statistics.mean[None, None],
    )
    return float(trained.score(replace(features, events=single), request).click[0, 0])


def test_without_history_the_loss_nears_the_entropy_of_a_logistic_world() -> None:
    planted = build(users=400, per_user=60, behaviours=4, history_length=4)
    features = planted.features
    params = PARAMS.model_copy(update={"epochs": 8, "patience": 8})
    trained, epochs = fit(RosaRanker, features, planted.labels, params)
    rows = features.rows(TEST)
    found = trained.predict(features, rows, logged_position=True)
    truth = planted.click[rows]
    kl = np.mean(
        truth * np.log(truth / found.click) + (1 - truth) * np.log((1 - truth) / (1 - found.click))
    )
    assert 0 <= kl < 0.01
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert found.revenue.mean() / 1e6 == pytest.approx(planted.mean_revenue[rows].mean(), rel=0.1)
    pairs = planted.click[rows] * planted.conversion[rows]
    assert found.conversion.mean() == pytest.approx(pairs.mean(), rel=0.15)


def test_what_goes_on_starts_from_what_was_judged() -> None:
    """At next to no rate it stays what it was; at some it moves, and the judged one does not."""
    features, labels = world().features, world().labels
    rows = features.rows(TEST)
    before = ranker().logits(features, rows).click
    still, _ = go_on(ranker(), features, labels, DEEP, RefitParams(epochs=1, rate=1e-12))
    torch.testing.assert_close(still.logits(features, rows).click, before)
    moved, epochs = go_on(ranker(), features, labels, DEEP, RefitParams(epochs=2, rate=0.5))
    assert not torch.allclose(moved.logits(features, rows).click, before)
    assert len(epochs) == 2
    torch.testing.assert_close(ranker().logits(features, rows).click, before, rtol=0, atol=0)


def test_an_untrained_network_predicts_the_base_rates() -> None:
    features = world().features
    logits = untrained(features).logits(features, features.rows(TEST))
    train = Examples.of(features, world().labels).take(features.rows(TRAIN))
    expected = rate(train.examined, train.clicked)
    assert torch.sigmoid(logits.click).mean() == pytest.approx(expected, abs=0.02)


def test_revenue_loss_by_hand() -> None:
    zero = torch.zeros(1)
    logits = Logits(zero, zero, torch.tensor([1.0]), torch.tensor([2.0]))
    # z = (log e^3 - 1) / 2 = 1
    found = revenue_loss(logits, torch.tensor([math.e**3]))
    assert found.item() == pytest.approx(0.5 + math.log(2))


def test_dense_encoding_by_hand() -> None:
    encoding = DenseEncoding(1, 2)
    encoding.fit(
        np.array([[0.0], [2.0], [6.0]], np.float32),
        np.array([2.0], np.float32),
        np.array([4.0], np.float32),
    )
    # bins [0, 2] and [2, 6]: 3 fills the first and a quarter of the second
    assert encoding(torch.tensor([[3.0]]))[0].tolist() == [0.25, 1.0, 0.25]
    assert encoding(torch.tensor([[100.0]]))[0].tolist() == [5.0, 1.0, 1.0]


def heads_of(ranker: RosaRanker) -> Heads:
    heads = ranker.net.heads_out
    assert isinstance(heads, Heads)
    return heads


def priced(features: Features, power: float) -> Features:
    """The same with revenue exp(2) x exp(log price) ** power of what converted."""
    log = features.impressions
    revenue = 1e6 * np.exp(2.0 + power * log.dense[:, 0]) * log.converted
    names = ("log_price", *features.dense_names[1:])
    changed = replace(log, revenue=np.rint(revenue).astype(np.int64))
    sold = known_at_once(changed)
    return replace(features, dense_names=names, impressions=changed, outcomes=sold)


def untrained(features: Features) -> RosaRanker:
    labels = labels_of(features)
    log = Examples.of(features, labels)
    return start(RosaRanker, features, log, labels.examination, PARAMS)


def test_revenue_starts_from_its_line_in_the_price() -> None:
    features = priced(build(users=60, per_user=40).features, 0.75)
    ranker, log = untrained(features), features.impressions
    sold = np.flatnonzero(log.converted)
    logits = ranker.logits(features, sold)
    expected = np.log(log.revenue[sold] / 1e6)
    np.testing.assert_allclose(logits.revenue_mean.numpy(), expected, atol=0.15)
    slope = heads_of(ranker).revenue_slope.numpy()
    np.testing.assert_allclose(slope, [0.75, 0.0, 0.0], atol=1e-4)


def test_revenue_that_falls_with_the_price_or_knows_none_has_no_line() -> None:
    features = build(users=60, per_user=40).features
    for same in (priced(features, -0.5), features):
        assert not heads_of(untrained(same)).revenue_slope.any()
