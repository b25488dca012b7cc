"""The fine-tuning loop: sample slates, reward them, step; with checkpoints that resume bit-equal.

Randomness is numpy's, in four named streams of one seed, and torch runs on one thread, so the
same candidates and parameters give the same bytes, whether or not the process was killed and
started again in between.
"""

import hashlib
import json
import pickle
import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

from roiflow.errors import RoiflowError
from roiflow.features.table import Floats, Longs
from roiflow.files import write_file
from roiflow.params import PolicyParams
from roiflow.policy import plackett_luce, ppo
from roiflow.policy.candidate_sets import CandidateSets, Progress
from roiflow.policy.environment import slate_rewards
from roiflow.policy.network import Network, SlatePolicy, start

_NETWORK, _SPLIT, _TRAINING, _MEASURING = range(4)

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Point:
    """The policy on the held-out requests after an iteration; iteration 0 is the start."""

    iteration: int
    reward: float
    """Expected reward of a slate, in currency units."""
    kl: float
    """KL(policy || start policy) of a slate, in nats."""
    entropy: float
    """Entropy of a slate, in nats."""


@dataclass(frozen=True)
class Finetuned:
    """A trained policy and how it got there."""

    policy: SlatePolicy
    curve: tuple[Point, ...]
    metrics: dict[str, float]


def finetune(
    candidates: CandidateSets,
    params: PolicyParams,
    *,
    top_k: int,
    checkpoints: Path | None = None,
    progress: Progress = lambda _fraction, _text: None,
) -> Finetuned:
    """Train the policy on the requests of `candidates`.

    Where `checkpoints` is a folder, the state is kept there every `checkpoint_every` iterations
    under the digest of everything the result depends on, and a run that finds it goes on from
    it. The caller calls `forget` once the result is safe. Raises RoiflowError where there are
    fewer than two requests, no candidate or an unreadable checkpoint.
    """
    if candidates.ad.shape[0] < 2 or not candidates.present.any():
        raise RoiflowError(
            f"cannot train a policy on {candidates.ad.shape[0]} requests with "
            f"{int(candidates.present.sum())} candidates: at least 2 and 1 are needed"
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _finetune(candidates, params, top_k, checkpoints, progress)
    finally:
        torch.set_num_threads(threads)


def _finetune(
    candidates: CandidateSets,
    params: PolicyParams,
    top_k: int,
    checkpoints: Path | None,
    progress: Progress,
) -> Finetuned:
    training, held_out = _split(candidates, params)
    first = start(
        training,
        params,
        top_k=top_k,
        network=Network.start(params.hidden, _stream(params.seed, _NETWORK)),
    )
    requests, measured = _requests(first, training), _requests(first, held_out)
    rng = _stream(params.seed, _TRAINING)
    # Drawn before a checkpoint is looked for, and so whether or not there is one; the stream's
    # state is then put back as it was kept.
    scale = _reward_scale(requests, params, rng)
    residual = ppo.Residual(first.network)
    optimizer = ppo.Adam(residual, params.learning_rate)
    curve = [_measure(0, first, measured, params)]
    file = None
    if checkpoints is not None:
        file = checkpoints / digest(candidates, params, top_k) / CHECKPOINT
        if file.exists():
            curve = _resume(file, residual, optimizer, rng)
    # The curve's length is the iteration to go on with, from a checkpoint as from the start.
    for iteration in range(len(curve), params.iterations + 1):
        now = replace(first, network=residual.network())
        rows = _draw(requests.value.shape[0], params, rng)
        batch_requests = requests.take(rows)
        batch = _sample(now, batch_requests, params, scale, rng)
        ppo.update(residual, optimizer, batch_requests, batch, params)
        after = replace(first, network=residual.network())
        curve.append(_measure(iteration, after, measured, params))
        if file is not None and iteration % params.checkpoint_every == 0:
            _keep(file, residual, optimizer, rng, curve)
        told = f"iteration {iteration} of {params.iterations}, reward {curve[-1].reward:.5f}"
        progress(iteration / params.iterations, told)
    policy = replace(first, network=residual.network())
    return Finetuned(policy, tuple(curve), _metrics(policy, curve, measured, held_out))


def digest(candidates: CandidateSets, params: PolicyParams, top_k: int) -> str:
    """Of the candidates, the parameters and this package's code: all that the result depends on."""
    total = hashlib.sha256(params.model_dump_json().encode())
    total.update(f"{top_k} {torch.__version__} {np.__version__}".encode())
    for field in fields(candidates):
        column = np.ascontiguousarray(getattr(candidates, field.name))
        total.update(f"{field.name} {column.shape} {column.dtype}".encode())
        total.update(column.data)
    # A checkpoint of other code would go on to bytes that neither code gives from the start.
    for source in sorted(Path(__file__).parent.glob("*.py")):
        total.update(source.read_bytes())
    return total.hexdigest()[:32]


def forget(checkpoints: Path) -> None:
    """Remove every checkpoint: the result is safe."""
    shutil.rmtree(checkpoints, ignore_errors=True)


def _stream(seed: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose])


def _split(candidates: CandidateSets, params: PolicyParams) -> tuple[CandidateSets, CandidateSets]:
    """Training and held-out requests, at least one of each."""
    order = _stream(params.seed, _SPLIT).permutation(candidates.ad.shape[0])
    held_out = max(1, order.size // params.held_out_every)
    # Chance says which requests are held out, and not in which order they stand.
    return candidates.take(np.sort(order[held_out:])), candidates.take(np.sort(order[:held_out]))


def _requests(policy: SlatePolicy, candidates: CandidateSets) -> ppo.Requests:
    return ppo.Requests(
        start=policy.start_logits(candidates),
        inputs=policy.inputs(candidates),
        value=candidates.value(policy.cost_weight),
    )


def _logits(policy: SlatePolicy, requests: ppo.Requests) -> Floats:
    return requests.start + policy.residual(requests.inputs)


def _draw(requests: int, params: PolicyParams, rng: np.random.Generator) -> Longs:
    """The requests of one batch, each once."""
    wanted = max(1, params.batch_slates // params.samples_per_request)
    return rng.permutation(requests)[:wanted]


def _reward_scale(requests: ppo.Requests, params: PolicyParams, rng: np.random.Generator) -> float:
    choices, _ = ppo.sample_slates(
        requests.start, params.samples_per_request, params.slate_size, rng
    )
    return ppo.reward_scale(requests.value, choices)


def _sample(
    policy: SlatePolicy,
    requests: ppo.Requests,
    params: PolicyParams,
    scale: float,
    rng: np.random.Generator,
) -> ppo.Batch:
    choices, log_propensity = ppo.sample_slates(
        _logits(policy, requests), params.samples_per_request, params.slate_size, rng
    )
    return ppo.Batch(choices, log_propensity, ppo.advantages(requests.value, choices, scale))


def _measure(
    iteration: int, policy: SlatePolicy, requests: ppo.Requests, params: PolicyParams
) -> Point:
    logit = _logits(policy, requests)
    # The same noise after every iteration: points of the curve differ by the policy and not by
    # luck.
    choices, log_propensity = ppo.sample_slates(
        logit, params.measured_samples, params.slate_size, _stream(params.seed, _MEASURING)
    )
    # The log ratio at the policy's own slates, whose mean is the divergence.
    of_start = plackett_luce.log_conditional_propensities(
        np.repeat(requests.start, params.measured_samples, axis=0),
        choices.reshape(-1, params.slate_size),
    ).reshape(choices.shape)
    return Point(
        iteration=iteration,
        reward=float(slate_rewards(requests.value, choices).mean()) / 1e6,
        kl=float((log_propensity - of_start).sum(axis=2).mean()),
        entropy=float(-log_propensity.sum(axis=2).mean()),
    )


def _metrics(
    policy: SlatePolicy,
    curve: list[Point],
    requests: ppo.Requests,
    held_out: CandidateSets,
) -> dict[str, float]:
    """Of the held-out requests; rewards in currency units per slate."""
    logit = policy.logits(held_out)
    probability = np.exp(logit - np.max(logit, axis=1, keepdims=True, initial=ppo.NEVER))
    # A request without candidates sums to 0; it is not among those looked at.
    probability /= np.maximum(probability.sum(axis=1, keepdims=True), 1e-300)
    best, _ = plackett_luce.greedy(
        np.where(held_out.present, requests.value, -np.inf), policy.slate_size
    )
    return {
        "requests": held_out.ad.shape[0],
        "candidates": float(held_out.present.sum(axis=1).mean()),
        "start_reward": curve[0].reward,
        "reward": curve[-1].reward,
        "best_reward": float(slate_rewards(requests.value, best).mean()) / 1e6,
        "kl": curve[-1].kl,
        "start_entropy": curve[0].entropy,
        "entropy": curve[-1].entropy,
        "min_propensity": float(probability[held_out.present].min(initial=1.0)),
    }


def _keep(
    file: Path,
    residual: ppo.Residual,
    optimizer: ppo.Adam,
    rng: np.random.Generator,
    curve: list[Point],
) -> None:
    state = {
        "network": residual.state_dict(),
        "optimizer": optimizer.state(),
        "numpy": json.dumps(rng.bit_generator.state),
        "torch": torch.get_rng_state(),
        # Plain numbers: a checkpoint is read with weights_only, which takes no class of ours.
        "curve": [[getattr(point, field.name) for field in fields(Point)] for point in curve],
    }
    with write_file(file) as path:
        torch.save(state, path)


def _resume(
    file: Path, residual: ppo.Residual, optimizer: ppo.Adam, rng: np.random.Generator
) -> list[Point]:
    """Put everything back as it was kept; the curve so far. Raises RoiflowError."""
    try:
        state = torch.load(file, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        raise RoiflowError(f"{file}: not a checkpoint; delete it to start again") from None
    # Both copy into what is there: the weights must stay views of the optimiser's vector.
    residual.load_state_dict(state["network"])
    optimizer.restore(**state["optimizer"])
    rng.bit_generator.state = json.loads(state["numpy"])
    torch.set_rng_state(state["torch"])
    return [Point(*values) for values in state["curve"]]
