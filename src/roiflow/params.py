"""params.yaml with types and bounds. No defaults: what is not in the file is an error."""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from roiflow.errors import ParamsError

Declared = TypeVar("Declared", bound=BaseModel)
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]
WeekName = Annotated[str, Field(pattern=r"^\d{4}-W\d{2}$")]
SourceName = Literal[
    "simulator", "complete_journey", "kuairand", "open_bandit", "files", "sql", "stream"
]


class Section(BaseModel):
    """A part of params.yaml: every key is required, no other key is allowed."""

    # Strict, because YAML has types of its own: a quoted number or a yes where a number belongs is
    # a slip, and to convert it would hide it.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ExaminationParams(Section):
    """Which positions of a slate are looked at.

    position_based: position k with probability 1 / k^exponent. cascade: the first one always, each
    next one with probability after_click or after_skip, as the one above was clicked or not.
    """

    model: Literal["position_based", "cascade"]
    exponent: NonNegative
    after_click: Fraction
    after_skip: Fraction


class AuctionParams(Section):
    """What an ad bids and pays.

    The median bid is `bid_share` of the revenue that an average user brings per click (or, charged
    by impression, per impression). First price pays the bid, second price the highest bid of an
    outside market whose median is `competition` times the category's median bid. With `budgets`, a
    day's budget is `budget_share` times an ad's equal share of a day's spend.
    """

    pricing: Literal["first", "second"]
    charge: Literal["click", "impression"]
    bid_share: Positive
    bid_sigma: NonNegative
    competition: NonNegative
    competition_sigma: NonNegative
    budgets: bool
    budget_share: Positive
    pacing: bool


class SyntheticParams(Section):
    """A population whose every parameter is planted. Rates are means per user and day."""

    users: Count
    ads: Count
    new_ads_per_week: Annotated[int, Field(ge=0)]
    ad_weeks: Positive
    arrival_days: Annotated[int, Field(ge=0, le=7)]
    creative_weeks: Count
    fatigue: NonNegative
    categories: Count
    popularity_exponent: NonNegative
    price_median: Positive
    price_sigma: NonNegative
    activity_shape: Positive
    session_events: Annotated[float, Field(ge=1)]
    session_minutes: Positive
    requests_per_user_day: Positive
    behaviours_per_user_day: NonNegative
    newcomers: Fraction
    churn: Fraction
    interest_drift: NonNegative
    session_intent: Fraction
    half_life_hours: Annotated[float, Field(ge=0.5)]
    intent_days: Count
    action_importance: dict[str, NonNegative]
    holidays: list[str]


class PanelParams(Section):
    """The Complete Journey panel's households and products."""

    products: Count
    requests_per_visit: Positive
    history_weeks: Count
    training_weeks: Count


class SimulatorParams(Section):
    """The ad world: a population, an auction and a response whose truth is known."""

    world: Literal["synthetic", "panel"]
    scenario: str
    shock_week: WeekName
    weeks: Count
    first_week: WeekName
    seed: Seed
    slate_size: Count
    known_lag_hours: Count
    logging_temperature: Positive
    popularity_noise: NonNegative
    click_rate: Probability
    conversion_rate: Probability
    interest_weight: NonNegative
    intent_weight: NonNegative
    delay_hours: list[float]
    attribution_days: Count
    revenue_sigma: NonNegative
    return_rate: Fraction
    return_days: Count
    examination: ExaminationParams
    auction: AuctionParams
    synthetic: SyntheticParams
    panel: PanelParams


class WindowParams(Section):
    """A source of which a window of `weeks` weeks is taken."""

    weeks: Count


class CompleteJourneyParams(WindowParams):
    """The Complete Journey panel."""

    history_weeks: Count


class SqlTables(Section):
    """The database's name of each table of the data contract."""

    impressions: Name
    behaviours: Name
    conversions: Name
    ads: Name
    users: Name


class SqlParams(WindowParams):
    """Tables of a database; in MySQL a schema is a database."""

    # pydantic's models have a `schema` of their own.
    schema_: Name = Field(alias="schema")
    tables: SqlTables


class IngestParams(Section):
    """What is pulled: the window of the source's `weeks` weeks that ends with `week`."""

    source: SourceName
    week: WeekName
    simulator: SimulatorParams
    complete_journey: CompleteJourneyParams
    kuairand: WindowParams
    open_bandit: WindowParams
    files: WindowParams
    sql: SqlParams
    stream: WindowParams

    @property
    def weeks(self) -> int:
        """Length of the chosen source's window, in weeks."""
        # Each source's section has its name, so none has to be listed here again.
        section: SimulatorParams | WindowParams = getattr(self, self.source)
        return section.weeks


class ValidateParams(Section):
    """The data contract's limits; amounts are of the door as well."""

    max_quarantined_fraction: Fraction
    # As much as the service's door ever lets in (stream.events.MAX_MICROS). A whole number up to
    # here is exact in a double, too.
    max_amount_micros: Annotated[int, Field(ge=1, le=10**15)]
    max_event_age_days: Count
    max_slate_size: Count


class FeaturesParams(Section):
    """Histories in events; which features there are is in `features.spec`.

    By the end of an hour as much of a day's budget may be spent as `traffic` up to then stands for.
    """

    history_length: Count
    prior_strength: Positive
    validation_days: Count
    run_up_days: Annotated[int, Field(ge=0)]
    min_count: Count
    traffic: list[NonNegative]

    @field_validator("traffic")
    @classmethod
    def _a_day(cls, traffic: list[float]) -> list[float]:
        if len(traffic) not in (0, 24):
            raise ValueError(f"{len(traffic)} hours, expected 24 or none")
        return traffic


class LabelsParams(Section):
    """How labels ripen, and which positions are looked at.

    Delays are learnt by category and by one column of the context; `prior_conversions` draw each
    category's to those of all, and each segment's to its category's. Where the log has propensities
    that tell the positions' factors to `max_swap_error`, they come from exchanged positions, else
    from a regression.
    """

    segment: Literal["placement", "device", "none"]
    prior_conversions: NonNegative
    longest_days: Count
    min_maturity: Probability
    max_swap_error: NonNegative
    l2: NonNegative
    prior_clicks: NonNegative
    max_rows: Count
    iterations: Count


class LogisticParams(Section):
    """Logistic regression; dense features are normalised by statistics of the training rows.

    Conversions are few, and drawn more to the same for all than clicks are.
    """

    normalisation: Literal["z_score", "min_max"]
    click_l2: Positive
    conversion_l2: Positive
    max_iterations: Count
    tolerance: Positive


class BoostingParams(Section):
    """One outcome's trees; the scorer holds a tree's leaves in 64 bits, so depth ends at 6."""

    max_depth: Annotated[int, Field(ge=1, le=6)]
    learning_rate: Positive
    min_child_weight: NonNegative
    l2: NonNegative


class XgboostParams(Section):
    """Gradient-boosted trees; conversions are few and want smaller ones than clicks."""

    rounds: Count
    max_bin: Annotated[int, Field(ge=2, le=256)]
    rows_in_memory: Annotated[int, Field(ge=0)]
    early_stopping_rounds: Count
    click: BoostingParams
    conversion: BoostingParams


class CalibrationParams(Section):
    """The calibrated logit: a line in each of `segments` quantile segments of the validation rows.

    So many that each has `events_per_segment` of the rarer class; no slope is under `min_slope`,
    so that the order of scores is kept, and `smoothness` draws neighbouring slopes together.
    `prior_events` draw the level to the model's own.
    """

    segments: Count
    events_per_segment: Count
    prior_events: NonNegative
    min_slope: Positive
    smoothness: NonNegative


class CandidatesParams(Section):
    """Pre-selection to the top K."""

    kind: Literal["logistic", "xgboost"]
    top_k: Count
    max_codes: Count
    seed: Seed
    logistic: LogisticParams
    xgboost: XgboostParams
    calibration: CalibrationParams


class LossWeights(Section):
    """Weight of each head's loss."""

    click: NonNegative
    conversion: NonNegative
    revenue: NonNegative


class RankerParams(Section):
    """The ROSA ranker; the cross-attention counts as one of `layers`."""

    seed: Seed
    dim: Count
    layers: Count
    heads: Count
    bins: Count
    epochs: Count
    patience: Count
    batch_tokens: Count
    max_impressions_per_user_batch: Count
    learning_rate: Positive
    id_learning_rate: NonNegative
    weight_decay: NonNegative
    warm_up: Annotated[float, Field(ge=0, lt=1)]
    averaging: Annotated[float, Field(ge=0, lt=1)]
    max_gradient: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    loss_weights: LossWeights
    calibration: CalibrationParams


class RefitParams(Section):
    """The judged models' way to the window's end."""

    epochs: Count
    rate: Positive


class PolicyParams(Section):
    """Plackett-Luce slate policy and PPO."""

    seed: Seed
    slate_size: Count
    cost_weight: NonNegative
    requests: Count
    # 1 would hold out every request, and leave none to train on.
    held_out_every: Annotated[int, Field(ge=2)]
    measured_samples: Count
    iterations: Count
    batch_slates: Count
    # A slate is measured against the others of its request: there has to be another.
    samples_per_request: Annotated[int, Field(ge=2)]
    ppo_epochs: Count
    clip: Positive
    kl_weight: NonNegative
    entropy_weight: NonNegative
    learning_rate: Positive
    hidden: Count
    selector_share: Fraction
    temperature: Positive
    residual_bound: Positive
    checkpoint_every: Count


class EvaluateParams(Section):
    """Off-policy evaluation and the limits under which its answer is `inconclusive`."""

    seed: Seed
    requests: Count
    resamples: Count
    confidence: Probability
    min_effective_sample_size: Positive
    # Far below where weights are cut (estimators.weights.LARGEST_WEIGHT): a cut one is never
    # conclusive.
    max_weight: Annotated[float, Field(gt=0, le=1e6)]
    mean_weight_tolerance: Positive
    min_support: Fraction
    min_maturity: Probability
    switch_weight: Positive
    shrinkage: Positive
    propensity_tolerance: Positive
    max_mismatched: Fraction
    draws: Count
    popularity_strength: NonNegative
    calibration_bins: Annotated[int, Field(ge=2)]
    max_pairs: Count
    suspicious_auc: Fraction
    suspicious_lift: Positive


class ExportParams(Section):
    """ONNX against torch; `feature_sample` of the slates are logged with all their features."""

    parity_rows: Count
    parity_tolerance: Positive
    feature_sample: Fraction


class ScreenParams(Section):
    """What refuses a package before it goes on trial."""

    seed: Seed
    resamples: Count
    confidence: Probability
    min_click_auc: Fraction
    min_value_lift: float
    min_refit_overlap: Fraction
    max_refit_value_factor: Annotated[float, Field(ge=1)]
    min_refit_propensity: Fraction
    first_model: Literal["allow", "override"]


class BudgetParams(Section):
    """How much may go wrong in a year of promotions: see `experiment.budget` for the rules.

    `candidate` is the adaptive rule's alone, `start` the share of `level` that `lord` begins with,
    `decay` the geometric sequence's.
    """

    rule: Literal["adaptive_spending", "alpha_spending", "lord"]
    level: Probability
    cap: Probability
    sequence: Literal["geometric", "even", "published"]
    decay: Probability
    candidate: Probability
    start: Probability


class CanaryParams(Section):
    """A challenger beside what serves, for a week: shares of the users, looks, and what decides.

    Lifts and losses are shares of what serves now. The mixture's interval is valid however often
    one looks; the planned one only at looks as they are planned, and narrower. The mixture's is
    narrowest where the sum of Delta varies `tuned_times` as much as at the first look.
    """

    start_share: Annotated[float, Field(gt=0, lt=1)]
    start_hours: Count
    share: Annotated[float, Field(gt=0, lt=1)]
    look_hours: Count
    last_look_hours: Count
    boundary: Literal["mixture", "planned"]
    spend_shape: float
    alpha: Probability
    tuned_times: Annotated[float, Field(ge=1)]
    harm: NonNegative
    margin: NonNegative
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    max_roi_loss: NonNegative
    max_late_hours: Annotated[int, Field(ge=0)]
    min_users: Count
    ratio_level: Probability
    max_clipped_mass: Fraction
    max_misassigned: Fraction
    max_ece: Fraction
    budget: BudgetParams


class ShipParams(Section):
    """Requests of the window's last days on which a refit is held against what was judged."""

    seed: Seed
    requests: Count


class RecalibrateParams(Section):
    """Platt maps of a served package; `prior_events` events as predicted draw each to identity."""

    hours: Count
    young_hours: Count
    later_hours: Count
    window_hours: Count
    user_share: Annotated[float, Field(gt=0, le=1)]
    min_clicks: Count
    prior_events: Positive
    min_slope: Annotated[float, Field(gt=0, le=1)]


class CheckParityParams(Section):
    """Served features against recomputed ones; what may differ of the slates that are compared."""

    max_different_fraction: Fraction


class DriftParams(Section):
    """Drift report."""

    method: Literal["psi", "jensenshannon"]  # both grow with drift, for numbers and categories
    bins: Annotated[int, Field(ge=2)]
    empty_share: Annotated[float, Field(gt=0, le=0.01)]
    threshold: Positive
    max_unseen: Fraction
    max_drifted_share: Fraction
    shown_rows: Annotated[int, Field(ge=100)]


class StreamParams(Section):
    """What is an acceptable event, and how much of the stream is taken at a time."""

    allowed_lateness_hours: Positive
    future_tolerance_seconds: NonNegative
    message_kb: Count
    duplicate_hours: Positive
    batch_events: Count
    batch_ms: Positive
    segment_mb: Count
    segment_seconds: Positive
    partitions: Count


class LoopRanker(Section):
    """Ranker training in the loop."""

    epochs: Count


class LoopPolicy(Section):
    """Policy training in the loop."""

    requests: Count
    iterations: Count


class LoopEvaluate(Section):
    """Evaluation in the loop."""

    requests: Count
    resamples: Count


class LoopExport(Section):
    """Export in the loop."""

    parity_rows: Count


class AblateParams(Section):
    """What `roiflow features ablate` looks at."""

    requests: Count
    suspicious_auc_gain: Positive


class WorthParams(Section):
    """On how many of a week's requests a policy that did not serve is asked."""

    requests: Count


class LoopParams(Section):
    """What the weekly runs of a closed loop have instead of the sections of the same names."""

    train_ranker: LoopRanker
    finetune_policy: LoopPolicy
    evaluate: LoopEvaluate
    export: LoopExport


class Params(Section):
    """The whole of params.yaml."""

    ingest: IngestParams
    # pydantic's models have a `validate` of their own.
    validate_: ValidateParams = Field(alias="validate")
    build_features: FeaturesParams
    fit_labels: LabelsParams
    train_candidates: CandidatesParams
    train_ranker: RankerParams
    refit: RefitParams
    finetune_policy: PolicyParams
    evaluate: EvaluateParams
    export: ExportParams
    ship: ShipParams
    recalibrate: RecalibrateParams
    check_parity: CheckParityParams
    screen: ScreenParams
    canary: CanaryParams
    report_drift: DriftParams
    stream: StreamParams
    ablate: AblateParams
    worth: WorthParams
    loop: LoopParams


def load_params(path: Path) -> Params:
    """Raises ParamsError, naming file, key and value of each fault."""
    return load_declared(Params, path)


def parse_params(text: str, path: Path) -> Params:
    """The text of params.yaml; `path` is what errors call it."""
    return _parsed(Params, text, path)


def load_declared(kind: type[Declared], path: Path) -> Declared:
    """A YAML file of a declared form. Raises ParamsError, naming file, key and value."""
    try:
        text = path.read_text()
    except OSError as error:
        raise ParamsError(f"{path}: {error.strerror}") from None
    return _parsed(kind, text, path)


def _parsed(kind: type[Declared], text: str, path: Path) -> Declared:
    try:
        return kind.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML: {error}") from None
    except ValidationError as error:
        # Every fault at once, each by its key as it is written in the file, and the value that is
        # there.
        faults = (
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']} (value {fault['input']!r})"
            for fault in error.errors()
        )
        raise ParamsError(f"{path}: " + "; ".join(faults)) from None
