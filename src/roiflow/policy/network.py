"""The slate policy: Plackett-Luce logits from what the ranker expects of each candidate.

logit = z(value) / temperature + bound x tanh(residual), where z standardises the expected value
(revenue minus lambda x cost) over the candidates of the request, and the residual is a small
network, the same for every candidate, whose last layer starts at 0. So the policy starts as the
ranker's softmax. |z| is at most sqrt(K - 1) and the residual at most `bound`: no candidate's
propensity ever underflows, and what is served can always be evaluated off-policy.

Numpy only, because serving uses it; `ppo.py` trains the same function in torch.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from roiflow.errors import PackageError
from roiflow.features.table import Flags, Floats
from roiflow.files import write_file
from roiflow.params import PolicyParams
from roiflow.policy.candidate_sets import CandidateSets

FILE = "policy.json"
FORMAT = 2
FEATURES = 7
_TINY = 1e-9


@dataclass(frozen=True)
class Network:
    """Two tanh layers; weights are (inputs, outputs)."""

    input_weight: Floats  # (FEATURES, hidden)
    input_bias: Floats  # (hidden,)
    hidden_weight: Floats  # (hidden, hidden)
    hidden_bias: Floats  # (hidden,)
    output_weight: Floats  # (hidden,)

    @classmethod
    def start(cls, hidden: int, rng: np.random.Generator) -> "Network":
        """Glorot-uniform layers (Glorot & Bengio, 2010) and a last layer of zeros."""

        def glorot(inputs: int) -> Floats:
            limit = np.sqrt(6 / (inputs + hidden))
            return rng.uniform(-limit, limit, size=(inputs, hidden))

        return cls(
            glorot(FEATURES), np.zeros(hidden), glorot(hidden), np.zeros(hidden), np.zeros(hidden)
        )

    def __call__(self, x: Floats) -> Floats:
        """(..., FEATURES) -> (...)."""
        first = np.tanh(x @ self.input_weight + self.input_bias)
        second = np.tanh(first @ self.hidden_weight + self.hidden_bias)
        residual: Floats = second @ self.output_weight
        return residual


@dataclass(frozen=True)
class SlatePolicy:
    """Everything that serving and evaluation need of the policy."""

    slate_size: int
    top_k: int
    """Candidates that pre-selection hands on."""
    cost_weight: float
    """lambda of value = revenue - lambda x cost."""
    selector_share: float
    """Weight of pre-selection's own predictions in what is expected; the ranker has the rest."""
    temperature: float
    residual_bound: float
    value_scale: float
    """Micros: the root mean square of the training candidates' value."""
    mean: Floats  # (FEATURES,) over the training candidates
    std: Floats  # (FEATURES,) never 0
    network: Network

    def start_logits(self, candidates: CandidateSets) -> Floats:
        """The ranker's softmax: standardised value over temperature; (B, K), -inf without ad."""
        z = standardise(candidates.value(self.cost_weight), candidates.present)
        return np.where(candidates.present, z / self.temperature, -np.inf)

    def logits(self, candidates: CandidateSets) -> Floats:
        """Plackett-Luce logits; (B, K), -inf where there is no candidate."""
        return self.start_logits(candidates) + self.residual(self.inputs(candidates))

    def residual(self, inputs: Floats) -> Floats:
        """What training adds to the start logits; (B, K, FEATURES) -> (B, K)."""
        bounded: Floats = self.residual_bound * np.tanh(self.network(inputs))
        return bounded

    def inputs(self, candidates: CandidateSets) -> Floats:
        """Standardised network inputs; (B, K, FEATURES)."""
        raw = raw_inputs(candidates, self.cost_weight, self.value_scale)
        x: Floats = (raw - self.mean) / self.std
        return x

    def save(self, folder: Path) -> None:
        """Write `policy.json`; the numbers come back bit-equal."""
        folder.mkdir(parents=True, exist_ok=True)
        with write_file(folder / FILE) as path:
            path.write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The content of `policy.json`."""
        content = {"format": FORMAT, **asdict(self)}
        return json.dumps(content, default=np.ndarray.tolist, sort_keys=True).encode()


def load(folder: Path) -> SlatePolicy:
    """Raises PackageError where the file is missing, not a policy or of another format."""
    path = folder / FILE
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise PackageError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise PackageError(f"{path}: not a slate policy: {type(content).__name__}")
    if content.get("format") != FORMAT:
        raise PackageError(
            f"{path}: format {content.get('format')!r}, this version reads format {FORMAT}"
        )
    try:
        network = Network(
            **{key: np.array(value, np.float64) for key, value in content["network"].items()}
        )
        numbers = {key: content[key] for key in content if key not in {"format", "network"}}
        policy = SlatePolicy(network=network, **numbers)
    # A ValueError: rows of different lengths, or a word where a weight has to be.
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise PackageError(f"{path}: not a slate policy: {error}") from None
    return replace(policy, mean=np.array(policy.mean), std=np.array(policy.std))


def start(
    candidates: CandidateSets, params: PolicyParams, *, top_k: int, network: Network
) -> SlatePolicy:
    """The policy before training, its scales taken from the training candidates."""
    present = candidates.present
    value = candidates.value(params.cost_weight)[present]
    scale = float(np.sqrt(np.mean(value**2))) if value.size else 0.0
    value_scale = scale if scale > 0 else 1.0
    raw = raw_inputs(candidates, params.cost_weight, value_scale)[present]
    std = raw.std(axis=0) if value.size else np.zeros(FEATURES)
    return SlatePolicy(
        slate_size=params.slate_size,
        top_k=top_k,
        cost_weight=params.cost_weight,
        selector_share=params.selector_share,
        temperature=params.temperature,
        residual_bound=params.residual_bound,
        value_scale=value_scale,
        mean=raw.mean(axis=0) if value.size else np.zeros(FEATURES),
        # What never varies is 0 less its mean, whatever it is divided by.
        std=np.where(std > _TINY, std, 1.0),
        network=network,
    )


def standardise(value: Floats, present: Flags) -> Floats:
    """Mean 0 and deviation 1 over each row's candidates; 0 where they are all equal; (B, K)."""
    # In units of the row's largest value first, so that squares of any money stay numbers.
    count = np.maximum(present.sum(axis=1, keepdims=True), 1)
    size = np.max(np.abs(value), axis=1, keepdims=True, where=present, initial=0.0)
    relative = np.where(present, value, 0.0) / np.where(size > 0, size, 1.0)
    centred = np.where(
        present, relative - relative.sum(axis=1, keepdims=True, where=present) / count, 0.0
    )
    std = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    z: Floats = np.where(std > _TINY, centred / np.maximum(std, _TINY), 0.0)
    return z


def raw_inputs(candidates: CandidateSets, cost_weight: float, value_scale: float) -> Floats:
    """What the network sees of each candidate; (B, K, FEATURES), 0 where there is none.

    Log odds of click and of conversion, log of revenue and of cost in units of the value scale,
    value in that scale, value standardised over the request, and how far it is below the best.
    """
    present = candidates.present
    value = candidates.value(cost_weight) / value_scale
    best = np.max(value, axis=1, keepdims=True, where=present, initial=-np.inf)
    gap = np.where(present, value - np.where(np.isfinite(best), best, 0.0), 0.0)
    # Logarithms throughout: money and rates spread over orders of magnitude, and tanh units see
    # only a few. arcsinh is the logarithm that takes losses, too.
    columns = (
        _log_odds(candidates.click),
        _log_odds(candidates.conversion),
        np.log1p(candidates.revenue / value_scale),
        np.log1p(candidates.expected_cost / value_scale),
        np.arcsinh(value),
        standardise(value, present),
        np.arcsinh(gap),
    )
    return np.where(present[..., None], np.stack(columns, axis=-1), 0.0)


def _log_odds(probability: Floats) -> Floats:
    clipped = np.clip(probability, 1e-7, 1 - 1e-7)
    odds: Floats = np.log(clipped) - np.log1p(-clipped)
    return odds
