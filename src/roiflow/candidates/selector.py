"""Pre-selection: score every ad of a request by expected value and keep the best K."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, Protocol
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from roiflow.candidates import logistic, trees
from roiflow.candidates.design import CHUNK_ROWS, Design, Rows, SideTables
from roiflow.data.split import TRAIN, VALIDATION
from roiflow.errors import PackageError
from roiflow.features.table import Features, Floats, Ints, Longs, Requests, Singles
from roiflow.files import write_directory
from roiflow.labels.examination import Examination
from roiflow.labels.model import Labels
from roiflow.params import CandidatesParams
from roiflow.ranking import calibrate
from roiflow.ranking.calibrate import Calibration, Calibrations
from roiflow.ranking.examples import Examples
from roiflow.ranking.protocol import Predictions
from roiflow.ranking.value import CostShares, expected_cost, expected_revenue, fit_cost_shares

FORMAT = 2
FILE, TABLES = "selector.json", "tables.npz"
Kind = Literal["logistic", "xgboost"]
KINDS: tuple[Kind, ...] = ("logistic", "xgboost")
CHOICE = "kind"
"""File of the candidates folder that names the kind that is used."""


class Model(Protocol):
    """What a kind of pre-selection does."""

    def logits(self, rows: Rows) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Rows (n,) -> click (n,), conversion given a click (n,)."""
        ...

    def save(self, folder: Path) -> None:
        """Write plain files."""
        ...


@dataclass(frozen=True)
class Tables:
    """The side tables a selector was trained beside."""

    attributes: Ints  # (ads, 5)
    profile: Ints  # (users, P)


@dataclass(frozen=True)
class RevenueModel:
    """E[revenue | conversion] = per_price x price + constant, micros; one of the two is 0."""

    per_price: float
    constant: float

    def revenue(self, price: Longs) -> Floats:
        """Micros, in the shape of `price`."""
        return self.per_price * price.astype(np.float64) + self.constant


@dataclass(frozen=True)
class Selector:
    """A trained pre-selection model; also a ranking.protocol.Ranker."""

    kind: Kind
    model: Model
    calibrations: Calibrations
    examination: Examination
    design: Design
    shares: CostShares
    revenue: RevenueModel
    price: Longs  # (ads,) micros, the newest known
    tables: Tables

    @property
    def name(self) -> str:
        """As in the leaderboard."""
        return self.kind

    def predict(
        self, features: Features, rows: Longs, *, logged_position: bool = False
    ) -> Predictions:
        """Logged impressions `rows` (n,) -> predictions (n,); see Ranker."""
        click, conversion = np.empty((2, rows.size), np.float32)
        # What the models read is made for some rows at a time; only what they say is kept.
        for start in range(0, rows.size, CHUNK_ROWS):
            some = slice(start, start + CHUNK_ROWS)
            click[some], conversion[some] = self._probabilities(
                self.design.impressions(features, rows[some])
            )
        ad = features.impressions.ad[rows]
        price = self.price[np.where(ad < self.price.size, ad, 0)]
        found = Predictions(click, conversion, self.revenue.revenue(price).astype(np.float32))
        if logged_position:
            return found.seen(self.examination.at(features.impressions.position[rows]))
        return found

    def _probabilities(self, rows: Rows) -> tuple[Singles, Singles]:
        """Rows (n,) -> P(click) (n,), P(click and conversion) (n,)."""
        return self.calibrations.probabilities(*self.model.logits(rows))

    def score(self, features: SideTables, requests: Requests) -> Predictions:
        """Candidate ads (B, K) -> predictions (B, K) at position 1; rows with ad -1 hold 0."""
        shape, candidate = requests.ad.shape, requests.ad >= 0
        click, conversion = self._probabilities(self.design.requests(features, requests))
        zero = np.float32(0)
        revenue = self.revenue.revenue(requests.price).astype(np.float32)
        return Predictions(
            np.where(candidate, click.reshape(shape), zero),
            np.where(candidate, conversion.reshape(shape), zero),
            np.where(candidate, revenue, zero),
        )

    def scores(self, features: SideTables, requests: Requests) -> Floats:
        """Expected revenue minus expected cost, micros (B, K); -inf where ad is -1."""
        return self.values(self.score(features, requests), requests)

    def values(self, predictions: Predictions, requests: Requests) -> Floats:
        """Expected revenue minus expected cost, micros (B, K); -inf where ad is -1."""
        value = expected_revenue(predictions) - expected_cost(
            predictions, requests.bid, self.shares
        )
        return np.where(requests.ad >= 0, value, -np.inf)

    def top_k(self, requests: Requests, k: int, tables: SideTables | None = None) -> Requests:
        """Keep the `k` best candidates of each request, best first; ties by column.

        `tables` replaces the side tables of training, where there are newer ones.
        """
        return narrow(requests, best(self.scores(tables or self.tables, requests), k))

    def save(self, folder: Path) -> None:
        """Write everything `load` needs."""
        with write_directory(folder) as aside:
            self.write(aside)

    def write(self, folder: Path) -> None:
        """Write into a folder that exists."""
        content = {
            "format": FORMAT,
            "kind": self.kind,
            "calibrations": asdict(self.calibrations),
            "examination": self.examination.factor.tolist(),
            "design": asdict(self.design),
            "shares": asdict(self.shares),
            "revenue": asdict(self.revenue),
        }
        (folder / FILE).write_text(json.dumps(content, indent=1) + "\n")
        np.savez(
            folder / TABLES,
            price=self.price,
            attributes=self.tables.attributes,
            profile=self.tables.profile,
        )
        self.model.save(folder)


def best(scores: Floats, k: int) -> Longs:
    """Columns (B, k) of the highest of the scores (B, K), highest first; ties by column."""
    # Stable, since what is shown must not depend on how a sort breaks ties.
    columns: Longs = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return columns


def narrow(requests: Requests, columns: Longs) -> Requests:
    """Candidates `columns` (B, k) of requests (B, K)."""
    rows = np.arange(columns.shape[0])[:, None]
    # Whole rows of features are taken, not elements: a third of take_along_axis' time.
    taken = {
        name: getattr(requests, name)[rows, columns] for name in ("ad", "price", "bid", "dense")
    }
    kept = {field.name: getattr(requests, field.name) for field in fields(Requests)}
    return Requests(**(kept | taken))


def fit(
    features: Features,
    labels: Labels,
    params: CandidatesParams,
    kind: Kind,
    rounds: trees.Rounds | None = None,
) -> Selector:
    """Train on the TRAIN rows; trees stop early on the VALIDATION rows, or after `rounds`."""
    design = Design.of(features, params.max_codes)
    log = Examples.of(features, labels)
    train, held_out = (log.take(features.rows(split)) for split in (TRAIN, VALIDATION))
    model: Model
    if kind == "logistic":
        model = logistic.fit(features, design, train, params.logistic)
    else:
        model = trees.fit(features, design, train, rounds or held_out, params.xgboost, params.seed)
    click, conversion = model.logits(design.impressions(features, held_out.rows))
    price = newest_price(features)
    return Selector(
        kind,
        model,
        calibrate.fit_both(click, conversion, held_out, params.calibration),
        labels.examination,
        design,
        fit_cost_shares(features, train.rows),
        fit_revenue(features, train, price),
        price,
        Tables(np.array(features.attributes), np.array(features.profile)),
    )


def refit(
    judged: Selector, features: Features, labels: Labels, params: CandidatesParams
) -> Selector:
    """`judged` made anew from the TRAIN rows as they are now, with as many trees as it has."""
    rounds = judged.model.rounds if isinstance(judged.model, trees.Trees) else None
    return fit(features, labels, params, judged.kind, rounds)


def newest_price(features: Features) -> Longs:
    """Price of each ad in the newest catalogue that holds it, micros (ads,); 0 where none does."""
    price = np.zeros(features.attributes.shape[0], np.int64)
    # Oldest first, so that a later week overwrites an earlier one.
    for catalogue in features.catalogues:
        price[catalogue.ad] = catalogue.price
    return price


def fit_revenue(features: Features, examples: Examples, price: Longs) -> RevenueModel:
    """Earned in proportion to the price, or the same for all: the one with less squared error.

    A log without revenue counts every conversion as one unit of the currency.
    """
    sold = examples.earned > 0
    if not sold.any():
        return RevenueModel(0.0, 1e6)
    # In a shop the price says most of it; where it does not (a flat commission), the mean does.
    paid = examples.earned[sold]
    listed = price[features.impressions.ad[examples.rows[sold]]].astype(np.float64)
    mean = float(paid.mean())
    share = float(paid.sum() / listed.sum()) if listed.sum() > 0 else 0.0
    closer = np.sum((paid - share * listed) ** 2) < np.sum((paid - mean) ** 2)
    return RevenueModel(share, 0.0) if closer else RevenueModel(0.0, mean)


def load_selector(folder: Path) -> Selector:
    """Read what `Selector.save` wrote; raises PackageError, naming the file."""
    path = folder / FILE
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT or content["kind"] not in KINDS:
            raise PackageError(
                f"{path}: kind {content['kind']!r} of format {content['format']}, "
                f"expected one of {KINDS} of format {FORMAT}"
            )
        design = {name: tuple(value) for name, value in content["design"].items()}
        kind, maps = content["kind"], content["calibrations"]
        # Opened here: numpy leaves open what it cannot read.
        with (folder / TABLES).open("rb") as file, np.load(file) as arrays:
            price, tables = arrays["price"], Tables(arrays["attributes"], arrays["profile"])
        model: Model = (
            logistic.Logistic.load(folder) if kind == "logistic" else trees.Trees.load(folder)
        )
        return Selector(
            kind,
            model,
            Calibrations(*(Calibration.of(maps[name]) for name in ("click", "conversion"))),
            Examination(np.array(content["examination"], np.float64)),
            Design(**design),
            CostShares(**content["shares"]),
            RevenueModel(**content["revenue"]),
            price,
            tables,
        )
    except OSError as error:
        raise PackageError(f"{error.filename or folder}: {error.strerror}") from None
    # The last two: tables that were cut off.
    except (ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise PackageError(f"{folder}: not a saved selector: {error}") from None


def load(folder: Path, kind: Kind | None = None) -> Selector:
    """The selector that the train_candidates stage chose, or its `kind`.

    The folder may also be that of one selector alone. Raises PackageError, naming the file.
    """
    choice = folder / CHOICE
    if kind is None and choice.is_file():
        return load_selector(folder / choice.read_text().strip())
    return load_selector(folder / kind if kind else folder)
