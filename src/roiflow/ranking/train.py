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
from roiflow.labels.examination import Examination
from roiflow.labels.model import Labels
from roiflow.params import CalibrationParams, RankerParams, RefitParams
from roiflow.ranking import calibrate, packing
from roiflow.ranking.examples import Examples
from roiflow.ranking.likelihood import LEAST_REST
from roiflow.ranking.metrics import auc
from roiflow.ranking.network import DenseEncoding, Heads, IdTable, Logits, training_moments
from roiflow.ranking.optimiser import AdamW
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
    """What happened and how exposed it was, any one shape; weight 0 marks padding."""

    clicked: Tensor
    converted: Tensor
    earned: Tensor  # units of the currency
    examined: Tensor
    matured: Tensor
    weight: Tensor

    @classmethod
    def of(cls, log: Examples, row: Longs) -> "Targets":
        """Labels of rows of the whole log; -1 is padding."""
        # Padding reads row 0, and its weight is 0.
        at = np.maximum(row, 0)
        earned = log.earned[at] / 1e6
        arrays = (log.clicked[at], log.converted[at], earned, log.examined[at], log.matured[at])
        return cls(*(torch.from_numpy(each.astype(np.float32)) for each in (*arrays, row >= 0)))


def exposed_loss(logit: Tensor, exposure: Tensor, observed: Tensor) -> Tensor:
    """`likelihood.terms` on tensors: -log P(observed) less its constant, element by element."""
    rest, hidden = torch.sigmoid(-logit), 1 - exposure
    none = torch.clamp(rest + hidden * torch.sigmoid(logit), min=LEAST_REST)
    # With nothing hidden the sum above is 1 - p alone, which a float32 soon rounds to 0.
    unobserved = torch.where(hidden == 0, F.softplus(logit), -torch.log(none))
    return torch.where(observed > 0, F.softplus(-logit), unobserved)


def probability_loss(logits: Logits, targets: Targets, params: RankerParams) -> Tensor:
    """-log P(what happened) of each row: of the click, and of the conversion where it was clicked.

    A row that nobody clicked on says nothing of conversions given a click.
    """
    weights = params.loss_weights
    click = exposed_loss(logits.click, targets.examined, targets.clicked)
    conversion = exposed_loss(logits.conversion, targets.matured, targets.converted)
    return weights.click * click + weights.conversion * targets.clicked * conversion


def revenue_loss(logits: Logits, revenue: Tensor) -> Tensor:
    """-log density of a log-normal revenue > 0, up to a constant; the zero part of the
    zero-inflated log-normal (Wang et al., 2019) is the conversion's.
    """
    z = (torch.log(torch.clamp(revenue, min=1e-6)) - logits.revenue_mean) / logits.revenue_std
    return 0.5 * z**2 + torch.log(logits.revenue_std)


def loss(logits: Logits, targets: Targets, params: RankerParams) -> tuple[Tensor, Tensor]:
    """Weighted sum of the heads' losses by impression, and without the revenue's."""
    each = probability_loss(logits, targets, params) * targets.weight
    probability = each.sum() / targets.weight.sum()
    paid = targets.weight * targets.converted * (targets.earned > 0)
    # 1 +: a batch without a conversion has no revenue to learn from, not a division by 0.
    amount = (revenue_loss(logits, targets.earned) * paid).sum() / (1 + paid.sum())
    return probability + params.loss_weights.revenue * amount, probability


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
    labels: Labels,
    params: RankerParams,
    progress: Progress | None = None,
) -> tuple[RankerType, list[Epoch]]:
    """Train `kind` on the TRAIN rows, stop and calibrate on the VALIDATION rows.

    Deterministic: the same features, params and torch build give the same weights (one thread).
    """
    # Forked: the caller's own random numbers go on as if nothing had been drawn.
    with one_thread(), torch.random.fork_rng():
        torch.manual_seed(params.seed)
        log = Examples.of(features, labels)
        ranker = start(kind, features, log, labels.examination, params)
        return ranker, _train(ranker, features, log, params, progress)


def go_on(
    judged: RankerType,
    features: Features,
    labels: Labels,
    params: RankerParams,
    again: RefitParams,
    progress: Progress | None = None,
) -> tuple[RankerType, list[Epoch]]:
    """`judged` trained further, on the TRAIN rows as they are now; it stays as it is.

    Most of those rows it has seen, so fewer epochs at `again.rate` of the learning rates come to
    what its whole training anew would. Bins, scales and the line in the price stay its own.
    Deterministic, as `fit`.
    """
    shorter = params.model_copy(
        update={
            "epochs": again.epochs,
            "learning_rate": again.rate * params.learning_rate,
            "id_learning_rate": again.rate * params.id_learning_rate,
        }
    )
    with one_thread(), torch.random.fork_rng():
        torch.manual_seed(params.seed)
        log = Examples.of(features, labels)
        net = copy.deepcopy(judged.net)
        ranker = type(judged)(judged.shape, net, labels.examination, Calibrator())
        return ranker, _train(ranker, features, log, shorter, progress)


def _train(
    ranker: TorchRanker,
    features: Features,
    log: Examples,
    params: RankerParams,
    progress: Progress | None,
) -> list[Epoch]:
    """Optimise and calibrate in place."""
    history = optimise(ranker, features, log, params, progress)
    ranker.calibrator = calibrator(ranker, features, log, params.calibration)
    return history


def start(
    kind: type[RankerType],
    features: Features,
    log: Examples,
    examination: Examination,
    params: RankerParams,
) -> RankerType:
    """An untrained ranker that predicts the base rates of the TRAIN rows."""
    rows = features.rows(TRAIN)
    shape = shape_of(features, params)
    ranker = kind(shape, kind.network(shape), examination, Calibrator())
    statistics = features.statistics
    net = ranker.net
    heads = net.heads_out
    assert isinstance(heads, Heads)
    heads.start(training_moments(features, log.take(rows), heads.revenue_slope.numel()))
    if isinstance(getattr(net, "dense", None), DenseEncoding):
        net.dense.fit(features.impressions.dense[rows], statistics.mean, statistics.std)  # type: ignore[operator, union-attr]
    return ranker


def optimise(
    ranker: TorchRanker,
    features: Features,
    log: Examples,
    params: RankerParams,
    progress: Progress | None,
) -> list[Epoch]:
    """AdamW with warm-up and cosine decay, on which a moving average of the weights follows.

    The average is what is validated, and its best epoch is what is kept. `log` is all impressions,
    by row.
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
            targets = Targets.of(log, batch.row)
            objective, probability = loss(ranker.net(*tensors(batch)), targets, params)
            objective.backward()  # type: ignore[no-untyped-call]
            optimiser.step(schedule(step / max(steps, 1), params.warm_up))
            n = targets.weight.sum().item()
            total, count, step = total + n * probability.item(), count + n, step + 1
        held_out_loss, click_auc = validate(average, features, log, params, held_out)
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
    modules = ranker.net.modules()
    tables = (module.parameters() for module in modules if isinstance(module, IdTable))
    ids = list(chain.from_iterable(tables))
    chosen = {id(parameter) for parameter in ids}
    return [each for each in ranker.net.parameters() if id(each) not in chosen], ids


def schedule(done: float, warm_up: float) -> float:
    """Linear over the first `warm_up` of the steps, then a cosine to 0; `done` in [0, 1]."""
    if done < warm_up:
        # 0.01: the very first step moves, too.
        return (done + 0.01) / (warm_up + 0.01)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warm_up) / (1 - warm_up))))


def validate(
    ranker: TorchRanker,
    features: Features,
    log: Examples,
    params: RankerParams,
    rows: Longs,
) -> tuple[float, float]:
    """Loss and click AUC of `rows`, before calibration."""
    logits = ranker.logits(features, rows)
    # As the second value of `loss`, so that the two curves can be held against each other.
    each = probability_loss(logits, Targets.of(log, rows), params)
    return float(each.mean()), auc(logits.click.numpy(), log.clicked[rows])


def calibrator(
    ranker: TorchRanker, features: Features, log: Examples, params: CalibrationParams
) -> Calibrator:
    """Fit to the VALIDATION rows, revenue by its total; `log`: all impressions, by row."""
    examples = log.take(features.rows(VALIDATION))
    logits = ranker.logits(features, examples.rows)
    maps = calibrate.fit_both(logits.click.numpy(), logits.conversion.numpy(), examples, params)
    # Revenue needs no map: what counts is a sum of money, so one factor makes the sums equal.
    sold = examples.converted & (examples.earned > 0)
    expected = Calibrator()(logits)[..., 2].numpy()[sold].sum(dtype=np.float64)
    paid = float(examples.earned[sold].sum()) / 1e6
    # Where nothing was paid here the network's own amounts stand, or 0 if nothing ever was.
    scale = paid / float(expected) if paid > 0 else float(np.any(log.earned > 0))
    return Calibrator(maps, scale)
