"""What a household wants: P(it buys a product in a week in which it shops), from the weeks before.

A logistic regression over the pairs of shopping households and advertised products, fitted by
Newton's method on the weeks just before the one it is asked about. Its features count weeks, not
units, and come only from the `history` weeks before the pair's own week. The two strongest are
smoothed log rates: of the household buying the product's type, and of the product among its
purchases of the type, so that their sum is close to the log odds sought. A third lets a household
that never bought the type have a taste for it: the cosine similarities of the product's buyers to
those of the types that the household does buy (item-based collaborative filtering; Sarwar et al.,
2001). Sums run in the rows' order, so the number of threads of the linear algebra changes nothing.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roiflow.compiled import compiled

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Flags = NDArray[np.bool_]

FEATURES = (
    "type_rate",
    "product_share",
    "product_rate",
    "type_recent",
    "product_recent",
    "type_last_week",
    "product_last_week",
    "similarity",
    "popularity",
    "product_trend",
    "type_trend",
    "price_trend",
    "visits",
    "breadth",
)
HALVING_WEEKS = 2.0
"""Of a purchase's part in the `recent` features."""
TYPE_PRIOR, SHARE_PRIOR = 1.0, 1.0
"""Weeks, and purchases of the type, that the panel's mean is worth in the smoothed rates."""
TREND_PRIOR = 5.0
"""Households that the mean week is worth in the trends."""
L2 = 1.0
"""Ridge on coefficients of standardised features."""
MAX_NEGATIVES = 1_000_000
"""More pairs without purchase than these are sampled and weighted back."""
MAX_STEPS, TOLERANCE = 30, 1e-6


@dataclass(frozen=True)
class Purchases:
    """n purchase lines of U households in time order; products and types are coded from 0."""

    household: Ints  # (n,)
    product: Longs  # (n,)
    time: Longs  # (n,) microseconds
    sales: Floats  # (n,) in the panel's currency
    quantity: Floats  # (n,)
    starts: Longs  # (W + 2,) first line of each week, from week 0; weeks are numbered from 1
    product_type: Longs  # (P,) type of each product, -1 where it has none
    households: int

    def lines(self, first: int, last: int) -> slice:
        """The lines of the weeks `first` to `last`."""
        return slice(int(self.starts[first]), int(self.starts[last + 1]))

    def shoppers(self, week: int) -> Flags:
        """(U,) whether the household bought anything in a week."""
        return np.bincount(self.household[self.lines(week, week)], minlength=self.households) > 0

    def bought(self, week: int, products: Longs) -> Flags:
        """(U, A) whether it bought each of some products in a week."""
        place = _places(products, self.product_type.size)
        lines = self.lines(week, week)
        column = place[self.product[lines]]
        out = np.zeros((self.households, products.size), bool)
        out[self.household[lines][column >= 0], column[column >= 0]] = True
        return out


def features(purchases: Purchases, week: int, history: int, products: Longs) -> Singles:
    """(U, A, F) of every household and each of `products` (A,), from the weeks before `week`."""
    types = np.unique(purchases.product_type[products])
    of_type = np.searchsorted(types, purchases.product_type[products])
    lines = purchases.lines(week - history, week - 1)
    line_week = np.repeat(np.arange(history), np.diff(purchases.starts[week - history : week + 1]))
    household, product = purchases.household[lines], purchases.product[lines]
    line_type = purchases.product_type[product]

    def weeks_of(column: Longs, columns: int) -> Flags:
        """(history, U, columns) whether the household bought it, oldest week first."""
        out = np.zeros((history, purchases.households, columns), bool)
        known = column >= 0
        out[line_week[known], household[known], column[known]] = True
        return out

    place = _places(products, purchases.product_type.size)[product]
    type_place = _places(types, int(purchases.product_type.max()) + 1)
    by_product = weeks_of(place, products.size)
    by_type = weeks_of(np.where(line_type >= 0, type_place[line_type], -1), types.size)
    shopped = weeks_of(np.zeros(place.size, np.int64), 1)[:, :, 0]

    product_weeks = by_product.sum(0, dtype=np.float64)  # (U, A)
    type_weeks = by_type.sum(0, dtype=np.float64)  # (U, T)
    visits = shopped.sum(0, dtype=np.float64)  # (U,)
    shop_weeks = max(visits.sum(), 1.0)
    # Half a week more, since the logarithm of what nobody bought is taken.
    popularity = (product_weeks.sum(0) + 0.5) / (shop_weeks + 1.0)  # (A,)
    type_popularity = (type_weeks.sum(0) + 0.5) / (shop_weeks + 1.0)  # (T,)
    share = popularity / type_popularity[of_type]
    type_rate = (type_weeks + TYPE_PRIOR * type_popularity) / (visits[:, None] + TYPE_PRIOR)
    product_share = (product_weeks + SHARE_PRIOR * share) / (
        np.maximum(type_weeks[:, of_type], product_weeks) + SHARE_PRIOR
    )
    product_rate = (product_weeks + TYPE_PRIOR * popularity) / (visits[:, None] + TYPE_PRIOR)

    # The last week has age 0 and counts in full.
    age = np.arange(history)[::-1]
    decay = 0.5 ** (age / HALVING_WEEKS)
    type_recent = np.tensordot(decay, by_type, 1)
    product_recent = np.tensordot(decay, by_product, 1)

    out = np.empty((purchases.households, products.size, len(FEATURES)), np.float32)
    columns: dict[str, Floats] = {
        "type_rate": np.log(type_rate)[:, of_type],
        "product_share": np.log(product_share),
        "product_rate": np.log(product_rate),
        "type_recent": type_recent[:, of_type],
        "product_recent": product_recent,
        "type_last_week": by_type[-1][:, of_type].astype(np.float64),
        "product_last_week": by_product[-1].astype(np.float64),
        "similarity": np.sqrt(_similarity(purchases, lines, products, product_weeks)),
        "popularity": np.log(popularity),
        "product_trend": _trend(by_product, shopped),
        "type_trend": _trend(by_type, shopped)[of_type],
        "price_trend": _price_trend(purchases, week, history, place, products.size),
        "visits": np.log1p(visits)[:, None],
        "breadth": np.log1p(np.bincount(household, minlength=visits.size))[:, None],
    }
    for number, name in enumerate(FEATURES):
        out[:, :, number] = columns[name]
    return out


def _places(wanted: Longs, size: int) -> Longs:
    """Column of each code below `size`, -1 where it is not wanted."""
    place = np.full(size, -1)
    place[wanted] = np.arange(wanted.size)
    return place


def _trend(bought: Flags, shopped: Flags) -> Floats:
    """(columns,) log of last week's rate of buying over the whole history's."""
    count, shops = bought.sum(1, dtype=np.float64), shopped.sum(1, dtype=np.float64)
    mean = count.sum(0) / max(shops.sum(), 1.0)
    expected = mean * shops[-1]
    return np.log((count[-1] + TREND_PRIOR) / (expected + TREND_PRIOR))


def _price_trend(
    purchases: Purchases, week: int, history: int, place: Longs, products: int
) -> Floats:
    """(products,) log of last week's unit price over the history's, 0 where there is none."""
    lines = purchases.lines(week - history, week - 1)
    last = purchases.lines(week - 1, week - 1)
    known = place >= 0

    def unit_price(chosen: Flags) -> Floats:
        column = place[chosen]
        sales = np.bincount(column, purchases.sales[lines][chosen], products)
        quantity = np.bincount(column, purchases.quantity[lines][chosen], products)
        return np.divide(sales, quantity, out=np.zeros(products), where=quantity > 0)

    whole = unit_price(known)
    recent = unit_price(known & (np.arange(place.size) >= last.start - lines.start))
    both = (whole > 0) & (recent > 0)
    return np.log(np.divide(recent, whole, out=np.ones(products), where=both))


def _similarity(
    purchases: Purchases, lines: slice, products: Longs, product_weeks: Floats
) -> Floats:
    """(U, A) mean cosine similarity of a product's buyers to those of the other types bought."""
    line_type = purchases.product_type[purchases.product[lines]]
    known = line_type >= 0
    types = int(purchases.product_type.max()) + 1
    bought = np.zeros((purchases.households, types), bool)
    bought[purchases.household[lines][known], line_type[known]] = True
    # Logarithms, so that a few households that buy a product every week do not decide whom it is
    # like.
    buyers = np.log1p(product_weeks)
    length = np.sqrt(np.square(buyers).sum(0))
    cosine = _shared(bought, buyers) / np.sqrt(np.maximum(bought.sum(0), 1.0))[:, None]
    cosine /= np.where(length > 0, length, 1.0)
    # Not with the product's own type, whose buyers are its buyers: the rates say that already.
    cosine[purchases.product_type[products], np.arange(products.size)] = 0.0
    mean: Floats = _summed(bought, cosine) / np.maximum(bought.sum(1), 1.0)[:, None]
    return mean


# The next two are products of a sparse matrix. They are written out since they are small beside
# the import of scipy.sparse, and visit the few products that a household buys instead of all.


@compiled(nogil=True)
def _shared(bought: Flags, buyers: Floats) -> Floats:
    """(T, A) of types bought (U, T) and products (U, A): the sum over households of buyers."""
    basket = np.empty(bought.shape[1], np.int64)
    chosen = np.empty(buyers.shape[1], np.int64)
    out = np.zeros((basket.size, chosen.size))
    for who in range(bought.shape[0]):
        types = _marked(bought[who], basket)
        products = _marked(buyers[who] > 0.0, chosen)
        for kind in basket[:types]:
            for product in chosen[:products]:
                out[kind, product] += buyers[who, product]
    return out


@compiled(nogil=True)
def _summed(bought: Flags, cosine: Floats) -> Floats:
    """(U, A) of types bought (U, T) and cosines (T, A): the sum over a household's types."""
    basket = np.empty(bought.shape[1], np.int64)
    out = np.zeros((bought.shape[0], cosine.shape[1]))
    for who in range(bought.shape[0]):
        for kind in basket[: _marked(bought[who], basket)]:
            for product in range(cosine.shape[1]):
                out[who, product] += cosine[kind, product]
    return out


@compiled(nogil=True)
def _marked(flags: Flags, places: Longs) -> int:
    """Write where flags are set to the front of `places`; how many there are."""
    count = 0
    for place in range(flags.size):
        if flags[place]:
            places[count] = place
            count += 1
    return count


@dataclass(frozen=True)
class ResponseModel:
    """Log odds linear in standardised features."""

    mean: Floats  # (F,)
    scale: Floats  # (F,)
    coefficients: Floats  # (F,)
    intercept: float
    base_rate: float  # of purchases among the pairs it was fitted on

    def log_odds(self, values: Singles) -> Floats:
        """(..., F) features to (...,) log odds."""
        # The standardisation goes into the coefficients, which saves a copy of all features. einsum
        # and no matrix product, whose sums would depend on the threads of the library.
        slope = self.coefficients / self.scale
        constant = self.intercept - float(np.sum(self.mean * slope))
        return np.einsum("...f,f->...", values, slope, dtype=np.float64) + constant


class Pairs(NamedTuple):
    """n pairs of a household and a product."""

    features: Singles  # (n, F)
    bought: Flags  # (n,)


def pairs(purchases: Purchases, week: int, values: Singles, products: Longs) -> Pairs:
    """Every household that shopped in a week with each of `products`, by their features."""
    shoppers = purchases.shoppers(week)
    bought = purchases.bought(week, products)[shoppers]
    return Pairs(values[shoppers].reshape(-1, len(FEATURES)), bought.ravel())


def fit(parts: list[Pairs], rng: np.random.Generator) -> ResponseModel:
    """The model of all pairs. Where negatives are sampled, a kept one stands for its share."""
    negatives = sum(int((~part.bought).sum()) for part in parts)
    # Purchases are few and carry what there is to learn, so only pairs without one are thinned out.
    kept = min(1.0, MAX_NEGATIVES / max(negatives, 1))
    if kept < 1.0:
        parts = [_sampled(part, kept, rng) for part in parts]
    bought = np.concatenate([part.bought for part in parts])
    weight = np.where(bought, 1.0, 1.0 / kept)
    values, mean, scale = _standardised(np.concatenate([part.features for part in parts]))
    intercept, coefficients = logistic(values, bought, weight, L2)
    rate = float(np.sum(weight * bought) / np.sum(weight))
    return ResponseModel(mean, scale, coefficients, intercept, rate)


def _sampled(part: Pairs, kept: float, rng: np.random.Generator) -> Pairs:
    """All purchases, and a share of the pairs without one."""
    chosen = part.bought | (rng.random(part.bought.size) < kept)
    return Pairs(part.features[chosen], part.bought[chosen])


@compiled(nogil=True, error_model="numpy")
def _standardised(values: Singles) -> tuple[Floats, Floats, Floats]:
    """(n, F) of mean 0 and variance 1, with the means and scales (F,); a constant has scale 1.

    As numpy would with five copies of the largest array of the fit.
    """
    rows, width = values.shape
    out, mean, scale = np.empty((rows, width)), np.zeros(width), np.zeros(width)
    for row in range(rows):
        for at in range(width):
            mean[at] += values[row, at]
    mean /= rows
    for row in range(rows):
        for at in range(width):
            out[row, at] = values[row, at] - mean[at]
            scale[at] += out[row, at] * out[row, at]
    for at in range(width):
        scale[at] = np.sqrt(scale[at] / rows) if scale[at] > 0 else 1.0
    for row in range(rows):
        for at in range(width):
            out[row, at] /= scale[at]
    return out, mean, scale


def logistic(values: Floats, label: Flags, weight: Floats, l2: float) -> tuple[float, Floats]:
    """Intercept and coefficients (F,) of ridge logistic regression by Newton's method.

    Minimises -sum w log P(label) + l2 / 2 |coefficients|^2; a step that does not lower it is
    halved. Where all labels are alike the intercept stays near the log odds of half a case.
    """
    # The intercept is not shrunk: the mean prediction would no longer be the mean rate.
    ridge = np.r_[0.0, np.full(values.shape[1], l2)]
    positive, total = float(np.sum(weight * label)), float(np.sum(weight))
    beta = np.zeros(ridge.size)
    beta[0] = np.log((positive + 0.5) / (total - positive + 0.5))
    # Without both labels there is no finite optimum.
    if positive in (0.0, total):
        return float(beta[0]), beta[1:]
    loss, gradient, hessian = _pass(values, label, weight, ridge, beta)
    for _ in range(MAX_STEPS):
        step = np.linalg.solve(hessian, gradient)
        while (tried := _pass(values, label, weight, ridge, beta - step))[0] > loss:
            step = step / 2
            if np.abs(step).max() < TOLERANCE:
                return float(beta[0]), beta[1:]
        beta = beta - step
        loss, gradient, hessian = tried
        if np.abs(step).max() < TOLERANCE:
            break
    return float(beta[0]), beta[1:]


@compiled(nogil=True)
def _pass(
    values: Floats, label: Flags, weight: Floats, ridge: Floats, beta: Floats
) -> tuple[float, Floats, Floats]:
    """Loss, gradient (F + 1,) and Hessian (F + 1, F + 1), summed row by row in their order."""
    width = beta.size
    loss, gradient, hessian = 0.0, np.zeros(width), np.zeros((width, width))
    for at in range(width):
        loss += ridge[at] * beta[at] ** 2 / 2
        gradient[at] = ridge[at] * beta[at]
        hessian[at, at] = ridge[at]
    # Row by row and in their order, instead of three matrix products: a library's sums depend on
    # how many threads it takes, and the world must be the same everywhere.
    row_values = np.zeros(width)
    row_values[0] = 1.0
    for row in range(label.size):
        odds = beta[0]
        for at in range(1, width):
            row_values[at] = values[row, at - 1]
            odds += beta[at] * row_values[at]
        margin = odds if label[row] else -odds
        # log(1 + exp(-margin)) without overflow, whichever the sign.
        loss += weight[row] * (np.log1p(np.exp(-abs(margin))) + max(-margin, 0.0))
        p = 1 / (1 + np.exp(-odds))
        residual = weight[row] * (p - (1.0 if label[row] else 0.0))
        curvature = weight[row] * p * (1 - p)
        for at in range(width):
            gradient[at] += residual * row_values[at]
            scaled = curvature * row_values[at]
            # The lower half; the matrix is symmetric and is completed once at the end.
            for other in range(at + 1):
                hessian[at, other] += scaled * row_values[other]
    for at in range(width):
        for other in range(at):
            hessian[other, at] = hessian[at, other]
    return loss, gradient, hessian


class HeldOutFit(NamedTuple):
    """How well the model foresaw a week that it was not fitted on."""

    pairs: int
    purchases: int
    auc: float
    log_loss: float  # nats per pair
    base_log_loss: float  # of the fitted weeks' rate of purchases, for all pairs alike
    pcoc: float  # predicted over observed purchases


def held_out(model: ResponseModel, week: Pairs) -> HeldOutFit:
    """The fit to the pairs of a later week; AUC is nan where nothing or everything was bought."""
    score = model.log_odds(week.features)
    p = 1 / (1 + np.exp(-score))
    bought = week.bought
    return HeldOutFit(
        pairs=bought.size,
        purchases=int(bought.sum()),
        auc=area_under_curve(score, bought),
        log_loss=_log_loss(p, bought),
        base_log_loss=_log_loss(np.full(bought.size, model.base_rate), bought),
        pcoc=float(p.sum() / max(bought.sum(), 1)),
    )


def area_under_curve(score: Floats, label: Flags) -> float:
    """P(a positive scores above a negative), ties half (Mann and Whitney, 1947)."""
    from scipy.stats import rankdata

    positive = int(label.sum())
    if positive in (0, label.size):
        return float("nan")
    rank = rankdata(score)
    above = rank[label].sum() - positive * (positive + 1) / 2
    return float(above / (positive * (label.size - positive)))


def _log_loss(p: Floats, label: Flags) -> float:
    # A certain prediction that is wrong once would make the mean infinite.
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return float(-np.mean(np.where(label, np.log(p), np.log1p(-p))))
