"""One training loop for every neural ranker: packed batches, early stopping, calibration."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roiflow.data.split import TRAIN, VALIDATION
from roiflow.features.table import Features, Longs
from roiflow.params import CalibrationParams, RankerParams
from roiflow.ranking import calibrate, packing
from roiflow.ranking.metrics import auc
from roiflow.ranking.network import (
    DenseEncoding,
    Heads,
    IdTable,
    Logits,
    PositionBias,
    log_click_and_conversion,
    logit_of,
    training_moments,
)
from roiflow.ranking.optimiser import AdamW
from roiflow.ranking.packing import Batch
from roiflow.ranking.torch_ranker import (
    Calibrator,
    NetworkShape,
    TorchRanker,
    one_thread,
    tensors,
)

RankerType = TypeVar("RankerType", bound=TorchRanker)
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Epoch:
    """One line of the training plot; losses in nats per impression."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_click_auc: float


@dataclass(frozen=True)
class Targets:
    """What happened, (R, I); weight 0 marks padding."""

    position: Tensor
    clicked: Tensor
    converted: Tensor
    revenue: Tensor  # units of the currency
    weight: Tensor

    @classmethod
    def of(cls, features: Features, batch: Batch) -> "Targets":
        """Labels of a batch's rows."""
        # Padding reads row 0, and its weight is 0.
        log, row = features.impressions, np.maximum(batch.row, 0)
        clicked = log.clicked[row]
        return cls(
            torch.from_numpy(log.position[row].astype(np.int64)),
            torch.from_numpy(clicked.astype(np.float32)),
            torch.from_numpy((clicked & log.converted[row]).astype(np.float32)),
            torch.from_numpy((log.revenue[row] / 1e6).astype(np.float32)),
            torch.from_numpy((batch.row >= 0).astype(np.float32)),
        )


def click_loss(logit: Tensor, clicked: Tensor) -> Tensor:
    """-log P(clicked), element by element."""
    return F.binary_cross_entropy_with_logits(logit, clicked, reduction="none")


def conversion_loss(click: Tensor, conversion: Tensor, converted: Tensor) -> Tensor:
    """-log P(click and conversion) with p = pCTR x pCVR (ESMM), element by element."""
    # log(1 - p) = log p - logit p. Probabilities are multiplied, never logits; as a sum of logs the
    # product of two small ones cannot underflow.
    log_p = log_click_and_conversion(click, conversion)
    return torch.where(converted > 0, -log_p, -log_p + logit_of(log_p))


def revenue_loss(logits: Logits, revenue: Tensor) -> Tensor:
    """-log density of a log-normal revenue > 0, up to a constant; the zero part of the
    zero-inflated log-normal (Wang et al., 2019) is the conversion's.
    """
    z = (torch.log(torch.clamp(revenue, min=1e-6)) - logits.revenue_mean) / logits.revenue_std
    return 0.5 * z**2 + torch.log(logits.revenue_std)


def loss(
    logits: Logits, position: Tensor, targets: Targets, params: RankerParams
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the heads' mean losses, and its click and conversion part alone."""
    weights, total = params.loss_weights, targets.weight.sum()
    # Both are judged as shown, with the position's part; serving leaves that part out, so that
    # an ad is not liked for where it stood.
    seen = logits.click + position
    each = weights.click * click_loss(seen, targets.clicked)
    each = each + weights.conversion * conversion_loss(seen, logits.conversion, targets.converted)
    probability = (each * targets.weight).sum() / total
    paid = targets.weight * targets.converted * (targets.revenue > 0)
    # 1 +: a batch without a conversion has no revenue to learn from, not a division by 0.
    amount = (revenue_loss(logits, targets.revenue) * paid).sum() / (1 + paid.sum())
    return probability + weights.revenue * amount, probability


def shape_of(features: Features, params: RankerParams) -> NetworkShape:
    """The network's sizes for a feature table."""
    return NetworkShape(
        dict(features.sizes),
        tuple(features.profile_names),
        len(features.dense_names),
        features.history_length,
        params.dim,
        params.layers,
        params.heads,
        params.dropout,
        params.bins,
    )


def fit(
    kind: type[RankerType],
    features: Features,
    params: RankerParams,
    progress: Progress | None = None,
) -> tuple[RankerType, list[Epoch]]:
    """Train `kind` on the TRAIN rows, stop and calibrate on the VALIDATION rows.

    Deterministic: the same features, params and torch build give the same weights (one thread).
    """
    # Forked: the caller's own random numbers go on as if nothing had been drawn.
    with one_thread(), torch.random.fork_rng():
        torch.manual_seed(params.seed)
        ranker = start(kind, features, params)
        history = optimise(ranker, features, params, progress)
        ranker.calibrator = calibrator(ranker, features, params.calibration)
    return ranker, history


def start(kind: type[RankerType], features: Features, params: RankerParams) -> RankerType:
    """An untrained ranker that predicts the base rates of the TRAIN rows."""
    rows = features.rows(TRAIN)
    shape = shape_of(features, params)
    ranker = kind(shape, kind.network(shape), PositionBias(), Calibrator())
    statistics = features.statistics
    net = ranker.net
    heads = net.heads_out
    assert isinstance(heads, Heads)
    heads.start(training_moments(features, rows, heads.revenue_slope.numel()))
    if isinstance(getattr(net, "dense", None), DenseEncoding):
        net.dense.fit(features.impressions.dense[rows], statistics.mean, statistics.std)  # type: ignore[operator, union-attr]
    return ranker


def optimise(
    ranker: TorchRanker,
    features: Features,
    params: RankerParams,
    progress: Progress | None,
) -> list[Epoch]:
    """AdamW with warm-up and cosine decay, on which a moving average of the weights follows.

    The average is what is validated, and its best epoch is what is kept.
    """
    rows, held_out = features.rows(TRAIN), features.rows(VALIDATION)
    segments = packing.cut(
        features,
        rows,
        ranker.reach(ranker.shape),
        min(ranker.impressions_per_segment, params.max_impressions_per_user_batch),
    )
    rng = np.random.default_rng(params.seed)
    # The same network again, whose weights are the averages: it is what is validated.
    average = copy.deepcopy(ranker)
    optimiser = optimiser_of(ranker, average, params)
    # As many as without a shuffle, which is near enough: past its end the rate stays 0.
    steps = params.epochs * len(packing.schedule(segments, params.batch_tokens, None))
    history: list[Epoch] = []
    best = optimiser.average
    step = 0
    for epoch in range(1, params.epochs + 1):
        if progress:
            loss_so_far = f", loss {history[-1].validation_loss:.5f}" if history else ""
            progress((epoch - 1) / params.epochs, f"epoch {epoch} of {params.epochs}{loss_so_far}")
        ranker.net.train()
        total = count = 0.0
        for batch in packing.batches(
            features, segments, ranker.shape.index_sizes, params.batch_tokens, rng
        ):
            targets = Targets.of(features, batch)
            logits = ranker.net(*tensors(batch))
            objective, probability = loss(
                logits, ranker.position(targets.position), targets, params
            )
            objective.backward()  # type: ignore[no-untyped-call]
            optimiser.step(schedule(step / max(steps, 1), params.warm_up))
            n = targets.weight.sum().item()
            total, count, step = total + n * probability.item(), count + n, step + 1
        held_out_loss, click_auc = validate(average, features, params, held_out)
        history.append(Epoch(epoch, total / count, held_out_loss, click_auc))
        best_epoch = min(history, key=lambda line: line.validation_loss).epoch
        if best_epoch == epoch:
            # A copy, as the average moves on.
            best = optimiser.average.clone()
        elif epoch - best_epoch >= params.patience:
            break
    # Into the vector of which the ranker's parameters are views.
    optimiser.values.copy_(best)
    ranker.net.eval()
    return history


def optimiser_of(ranker: TorchRanker, average: TorchRanker, params: RankerParams) -> AdamW:
    """The tables of ids have a learning rate of their own."""
    others, ids = groups(ranker)
    return AdamW(
        [(others, params.learning_rate), (ids, params.id_learning_rate)],
        [*chain(*groups(average))],
        params,
    )


def groups(ranker: TorchRanker) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """All parameters: those that are not of a table of ids, and those that are."""
    modules = [*ranker.net.modules(), *ranker.position.modules()]
    tables = (module.parameters() for module in modules if isinstance(module, IdTable))
    ids = list(chain.from_iterable(tables))
    chosen = {id(parameter) for parameter in ids}
    every = chain(ranker.net.parameters(), ranker.position.parameters())
    return [parameter for parameter in every if id(parameter) not in chosen], ids


def schedule(done: float, warm_up: float) -> float:
    """Linear over the first `warm_up` of the steps, then a cosine to 0; `done` in [0, 1]."""
    if done < warm_up:
        # 0.01: the very first step moves, too.
        return (done + 0.01) / (warm_up + 0.01)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warm_up) / (1 - warm_up))))


def validate(
    ranker: TorchRanker,
    features: Features,
    params: RankerParams,
    rows: Longs,
) -> tuple[float, float]:
    """Loss and click AUC of `rows`, before calibration."""
    logits, position = ranker.logits(features, rows)
    log = features.impressions
    clicked = torch.from_numpy(log.clicked[rows].astype(np.float32))
    converted = torch.from_numpy((log.clicked[rows] & log.converted[rows]).astype(np.float32))
    seen = logits.click + position
    weights = params.loss_weights
    # As the second value of `loss`, so that the two curves can be held against each other.
    each = weights.click * click_loss(seen, clicked)
    each = each + weights.conversion * conversion_loss(seen, logits.conversion, converted)
    return float(each.mean()), auc(logits.click.numpy(), log.clicked[rows])


def calibrator(ranker: TorchRanker, features: Features, params: CalibrationParams) -> Calibrator:
    """Fit to the VALIDATION rows, clicks at the logged position, revenue by its total."""
    log, rows = features.impressions, features.rows(VALIDATION)
    logits, position = ranker.logits(features, rows)
    seen = logits.click + position
    product = logit_of(log_click_and_conversion(seen, logits.conversion))
    converted = log.clicked[rows] & log.converted[rows]
    click = calibrate.fit(seen.numpy(), log.clicked[rows], params)
    conversion = calibrate.fit(product.numpy(), converted, params)
    # Revenue needs no map: what counts is a sum of money, so one factor makes the sums equal.
    expected = Calibrator()(logits)[..., 2].numpy()[converted].sum()
    paid = float(log.revenue[rows][converted].sum(dtype=np.float64)) / 1e6
    everything = log.revenue[features.rows(TRAIN)].sum(dtype=np.float64)
    # Where nothing was paid here the network's own amounts stand, or 0 if nothing ever was.
    scale = paid / float(expected) if paid > 0 else float(everything > 0)
    return Calibrator(click, conversion, scale)
