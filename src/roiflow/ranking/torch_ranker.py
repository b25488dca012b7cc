"""What the neural rankers share: one batch format, calibrated outputs, plain files."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

from roiflow.errors import PackageError
from roiflow.features.table import AD_ATTRIBUTES, CONTEXT, Features, Longs, Requests
from roiflow.files import write_directory
from roiflow.labels.examination import Examination
from roiflow.ranking import packing, serving_form
from roiflow.ranking.calibrate import UNCHANGED, Calibration, Calibrations
from roiflow.ranking.network import Logits
from roiflow.ranking.packing import Batch
from roiflow.ranking.protocol import Predictions
from roiflow.ranking.serving_form import Sizes

FORMAT = 3
PREDICT_TOKENS = 4096
SCORE_PAIRS = 8192
MAX_LOG_REVENUE = 20.0


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: sums in one order, so the same seed gives the same weights.

    It is also the faster choice for layers this small on shared cores (OpenMP spins).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class NetworkShape:
    """Everything that sizes a network."""

    sizes: dict[str, int]
    profile_names: tuple[str, ...]
    dense: int
    history_length: int
    dim: int
    layers: int
    heads: int
    dropout: float
    bins: int

    @property
    def context_sizes(self) -> list[int]:
        """Rows of the tables of CONTEXT."""
        return [self.sizes[name] for name in CONTEXT]

    @property
    def attribute_sizes(self) -> list[int]:
        """Rows of the tables of AD_ATTRIBUTES."""
        return [self.sizes[name] for name in AD_ATTRIBUTES]

    @property
    def index_sizes(self) -> Sizes:
        """Limits of the indices."""
        return Sizes.of(self.sizes, self.profile_names)


@dataclass(frozen=True)
class Behaviours:
    """What the encoder reads."""

    ad: Tensor  # (R, T)
    category: Tensor  # (R, T)
    action: Tensor  # (R, T)
    hours: Tensor  # (R, T) to the newest event of the row
    length: Tensor  # (R,)


@dataclass(frozen=True)
class Candidates:
    """What is asked of the memory; J is I, or 1 where all candidates share one request."""

    history_ad: Tensor  # (R, T)
    history_category: Tensor  # (R, T)
    elapsed: Tensor  # (R, J, T) hours
    window: Tensor  # (R, J, T) the events that are seen
    user: Tensor  # (R,)
    profile: Tensor  # (R, P)
    context: Tensor  # (R, J, 4)
    ad: Tensor  # (R, I)
    attributes: Tensor  # (R, I, 5)
    dense: Tensor  # (R, I, F)


def tensors(batch: Batch) -> tuple[Behaviours, Candidates]:
    """A packed batch as tensors that share its memory."""
    # By position, in the order of Batch's fields; `row`, the last, is left out below.
    ad, category, action, hours, length, user, profile, context, elapsed, window, *candidate = (
        torch.from_numpy(getattr(batch, field.name)) for field in fields(batch)
    )
    return (
        Behaviours(ad, category, action, hours, length),
        Candidates(ad, category, elapsed, window, user, profile, context, *candidate[:3]),
    )


class Calibrator(nn.Module):
    """Logits -> (..., 3): calibrated click, click and conversion (pCTR x pCVR), expected revenue.

    Revenue is exp(mean + std^2 / 2) x scale, in units of the currency; `scale` is 0 where no
    revenue was ever seen.
    """

    def __init__(self, calibrations: Calibrations = UNCHANGED, revenue_scale: float = 1.0) -> None:
        super().__init__()
        self.click, self.conversion = calibrations.click, calibrations.conversion
        self.revenue_scale = revenue_scale

    def forward(self, logits: Logits) -> Tensor:
        """At position 1."""
        click = torch.sigmoid(calibrated(logits.click, self.click))
        # Probabilities are multiplied (ESMM, Ma et al., 2018): no conversion is above its click.
        conversion = click * torch.sigmoid(calibrated(logits.conversion, self.conversion))
        log_revenue = logits.revenue_mean + 0.5 * logits.revenue_std**2
        # Bounded, because a network far from its data could make the mean of a log-normal infinite.
        revenue = torch.exp(torch.clamp(log_revenue, max=MAX_LOG_REVENUE)) * self.revenue_scale
        return torch.stack([click, conversion, revenue], dim=-1)


def calibrated(logit: Tensor, map_: Calibration) -> Tensor:
    """Calibration.apply on tensors."""
    if not map_.knots:
        return map_.intercept + map_.slopes[0] * logit
    total = map_.intercept + map_.slopes[0] * torch.clamp(logit, max=map_.knots[0])
    for low, high, slope in zip(map_.knots[:-1], map_.knots[1:], map_.slopes[1:-1], strict=True):
        total = total + slope * (torch.clamp(logit, low, high) - low)
    return total + map_.slopes[-1] * torch.clamp(logit - map_.knots[-1], min=0.0)


class TorchRanker:
    """A ranker around a network that turns Behaviours and Candidates into Logits."""

    name: ClassVar[str]
    network: ClassVar[type[nn.Module]]
    impressions_per_segment: ClassVar[int] = 512

    def __init__(
        self, shape: NetworkShape, net: nn.Module, examination: Examination, calibrator: Calibrator
    ) -> None:
        self.shape, self.net, self.calibrator = shape, net, calibrator
        self.examination = examination

    @classmethod
    def reach(cls, shape: NetworkShape) -> int:
        """Events before the H-window that influence what an impression sees."""
        return serving_form.encode_length(shape.layers, shape.history_length) - shape.history_length

    @property
    def encode_length(self) -> int:
        """Events that the network must be given of a user: L of the serving form."""
        return self.shape.history_length + self.reach(self.shape)

    def logits(self, features: Features, rows: Longs, batch_tokens: int = PREDICT_TOKENS) -> Logits:
        """Logged impressions (n,) -> logits (n,) at position 1."""
        segments = packing.cut(features, rows, self.reach(self.shape), self.impressions_per_segment)
        # By row of the log, since batches come by length.
        out = torch.zeros(4, features.impressions.user.size)
        with one_thread(), torch.inference_mode():
            self.net.eval()
            for batch in packing.batches(features, segments, self.shape.index_sizes, batch_tokens):
                logits = self.net(*tensors(batch))
                present = batch.row >= 0
                at = torch.from_numpy(batch.row[present])
                values = (logits.click, logits.conversion, logits.revenue_mean, logits.revenue_std)
                out[:, at] = torch.stack(values)[:, torch.from_numpy(present)]
            return Logits(*out[:, torch.from_numpy(rows)])

    def predict(
        self, features: Features, rows: Longs, *, logged_position: bool = False
    ) -> Predictions:
        """Logged impressions `rows` (n,) -> predictions (n,); see Ranker."""
        if rows.size == 0:
            empty = np.zeros(0, np.float32)
            return Predictions(empty, empty, empty)
        with torch.inference_mode():
            output = self.calibrator(self.logits(features, rows)).numpy()
        found = serving_form.predictions(output, np.ones(rows.size, np.bool_))
        if logged_position:
            return found.seen(self.examination.at(features.impressions.position[rows]))
        return found

    def score(self, features: Features, requests: Requests) -> Predictions:
        """Candidate ads (B, K) -> predictions (B, K) at position 1."""
        step = max(1, SCORE_PAIRS // requests.ad.shape[1])
        with one_thread(), torch.inference_mode():
            self.net.eval()
            return serving_form.in_parts(
                requests,
                requests.history_end - features.events.offsets[requests.user],
                step,
                lambda rows: self._score(features, requests.take(rows)),
            )

    def _score(self, features: Features, requests: Requests) -> Predictions:
        logits = self.net(*request_tensors(features, requests, self.encode_length, self.shape))
        return serving_form.predictions(self.calibrator(logits).numpy(), requests.ad >= 0)

    def save(self, folder: Path) -> None:
        """Write model.json and weights.npz."""
        with write_directory(folder) as aside:
            self.write(aside)

    def write(self, folder: Path) -> None:
        """Write into a folder that exists."""
        content = {
            "format": FORMAT,
            "name": self.name,
            "shape": asdict(self.shape),
            "examination": self.examination.factor.tolist(),
            "calibration": {
                "click": asdict(self.calibrator.click),
                "conversion": asdict(self.calibrator.conversion),
                "revenue_scale": self.calibrator.revenue_scale,
            },
        }
        (folder / "model.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        state = self.net.state_dict()
        arrays: dict[str, Any] = {key: value.numpy() for key, value in state.items()}
        np.savez(folder / "weights.npz", **arrays)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; raises PackageError, naming the file."""
        path = folder / "model.json"
        try:
            content = json.loads(path.read_text())
            if (content["format"], content["name"]) != (FORMAT, cls.name):
                raise PackageError(
                    f"{path}: holds {content['name']} of format {content['format']}, "
                    f"expected {cls.name} of format {FORMAT}"
                )
            shape = NetworkShape(
                **{**content["shape"], "profile_names": tuple(content["shape"]["profile_names"])}
            )
            # Opened here: numpy leaves open what it cannot read.
            with (folder / "weights.npz").open("rb") as file, np.load(file) as arrays:
                state = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
            maps = content["calibration"]
            examination = Examination(np.array(content["examination"], np.float64))
            calibrator = Calibrator(
                Calibrations(Calibration.of(maps["click"]), Calibration.of(maps["conversion"])),
                maps["revenue_scale"],
            )
            net = cls.network(shape)
            net.load_state_dict(state)
        except OSError as error:
            raise PackageError(f"{error.filename or folder}: {error.strerror}") from None
        # The last three: weights that were cut off, or that are of other sizes than the shape.
        except (ValueError, KeyError, TypeError, EOFError, BadZipFile, RuntimeError) as error:
            raise PackageError(f"{folder}: not a saved {cls.name} ranker: {error}") from None
        return cls(shape, net.eval(), examination, calibrator.eval())


def request_tensors(
    features: Features, requests: Requests, width: int, shape: NetworkShape
) -> tuple[Behaviours, Candidates]:
    """Requests as tensors with J = 1; of each history the last `width` events are read."""
    sizes = shape.index_sizes
    people = serving_form.people(features, requests, width)
    history = people.history.cut(width)
    feed = serving_form.encoder_inputs(history, sizes)
    feed |= serving_form.scorer_inputs(
        requests,
        replace(people, history=history),
        # Where there is no candidate the first row is read; its predictions are put to 0 later.
        features.attributes[requests.ad.clip(0)],
        sizes,
    )
    tensor = {name: torch.from_numpy(value) for name, value in feed.items()}
    return (
        Behaviours(*(tensor[name] for name in serving_form.ENCODER_INPUTS)),
        Candidates(
            tensor["history_ad"],
            tensor["history_category"],
            tensor["elapsed_hours"][:, None],
            seen(tensor["length"], history.ad.shape[1], shape.history_length)[:, None],
            tensor["user"],
            tensor["profile"],
            tensor["context"][:, None],
            tensor["ad"],
            tensor["attributes"],
            tensor["dense"],
        ),
    )


def seen(length: Tensor, width: int, history_length: int) -> Tensor:
    """Which of `width` right-aligned columns hold the last H events: (R,) -> (R, width)."""
    return torch.arange(width) >= width - torch.clamp(length, max=history_length)[:, None]
