import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from roiflow.errors import RoiflowError
from roiflow.policy import plackett_luce
from roiflow.policy.finetune import CHECKPOINT, digest, finetune, forget
from tests.unit.policy.worlds import PARAMS, candidate_sets, planted

ROOT = Path(__file__).parents[3]


def test_finds_the_best_slate_of_a_small_world() -> None:
    # Nearly equal values, in a fixed order: the start policy hardly tells them apart at slot 2.
    click = np.tile([0.10, 0.20, 0.05, 0.15], (40, 1)) * np.linspace(0.9, 1.1, 40)[:, None]
    sets = candidate_sets(click)
    params = PARAMS.model_copy(update={"kl_weight": 0.0})
    done = finetune(sets, params, top_k=4)
    choices, _ = plackett_luce.greedy(done.policy.logits(sets), 2)
    np.testing.assert_array_equal(choices, np.tile([1, 3], (40, 1)))
    gap = done.metrics["best_reward"] - done.metrics["start_reward"]
    assert done.metrics["reward"] - done.metrics["start_reward"] > 0.6 * gap


def test_rewards_rise_over_the_start_policy() -> None:
    done = finetune(planted(), PARAMS, top_k=4)
    assert done.curve[0].iteration == 0
    assert done.curve[0].kl == pytest.approx(0, abs=1e-12)
    assert done.metrics["reward"] > done.metrics["start_reward"]
    assert done.metrics["reward"] <= done.metrics["best_reward"]
    assert 0 < done.metrics["min_propensity"] < 1


def test_a_large_kl_weight_keeps_the_start_policy() -> None:
    free = finetune(planted(), PARAMS.model_copy(update={"kl_weight": 0.0}), top_k=4)
    weak = finetune(planted(), PARAMS.model_copy(update={"kl_weight": 1.0}), top_k=4)
    held = finetune(planted(), PARAMS.model_copy(update={"kl_weight": 1e4}), top_k=4)
    assert free.metrics["kl"] > weak.metrics["kl"] > held.metrics["kl"]
    assert abs(held.metrics["kl"]) < 0.01
    assert held.metrics["reward"] == pytest.approx(held.metrics["start_reward"], rel=0.02)


def test_entropy_weight_keeps_exploring() -> None:
    sharp = finetune(planted(), PARAMS, top_k=4)
    broad = finetune(planted(), PARAMS.model_copy(update={"entropy_weight": 1.0}), top_k=4)
    assert broad.metrics["entropy"] > sharp.metrics["entropy"]


def test_absent_candidates_are_never_shown() -> None:
    sets = candidate_sets(np.random.default_rng(0).uniform(0.01, 0.3, (60, 3)), absent=True)
    done = finetune(sets, PARAMS.model_copy(update={"iterations": 4, "slate_size": 3}), top_k=3)
    choices, _ = plackett_luce.sample(done.policy.logits(sets), 3, np.random.default_rng(0))
    assert not np.any(choices[::2] == 2)
    np.testing.assert_array_equal(choices[::2, 2], -1)


def test_same_seed_same_bytes_and_another_seed_others() -> None:
    params = PARAMS.model_copy(update={"iterations": 3})
    first = finetune(planted(), params, top_k=4)
    again = finetune(planted(), params, top_k=4)
    other = finetune(planted(), params.model_copy(update={"seed": 8}), top_k=4)
    assert first.policy.to_bytes() == again.policy.to_bytes()
    assert first.policy.to_bytes() != other.policy.to_bytes()
    assert first.curve == again.curve


def test_too_little_to_train_on_is_named() -> None:
    with pytest.raises(RoiflowError, match="on 1 requests with 4 candidates"):
        finetune(planted(1), PARAMS, top_k=4)


VICTIM = """
import sys, time
from pathlib import Path
from roiflow.policy.finetune import finetune
from tests.unit.policy.worlds import PARAMS, planted

def progress(fraction, text):
    print(fraction, flush=True)
    time.sleep(0.05)

finetune(planted(), PARAMS, top_k=4, checkpoints=Path(sys.argv[1]), progress=progress)
"""


def test_killed_in_the_middle_it_ends_bit_equal(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert victim.stdout is not None
    for line in victim.stdout:
        if float(line) >= 7 / PARAMS.iterations:  # past the checkpoint of iteration 6
            victim.send_signal(signal.SIGKILL)
            break
    victim.stdout.close()
    assert victim.wait() == -signal.SIGKILL
    assert (folder / digest(planted(), PARAMS, 4) / CHECKPOINT).exists()
    seen: list[float] = []
    resumed = finetune(
        planted(), PARAMS, top_k=4, checkpoints=folder, progress=lambda at, _: seen.append(at)
    )
    undisturbed = finetune(planted(), PARAMS, top_k=4)
    assert 7 <= round(seen[0] * PARAMS.iterations) <= 13
    assert resumed.policy.to_bytes() == undisturbed.policy.to_bytes()
    assert resumed.curve == undisturbed.curve
    assert resumed.metrics == undisturbed.metrics
    forget(folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("seed", "clip"), [(0, 0.2), (1, 0.2), (0, 0.3)], ids=["same", "candidates", "parameter"]
)
def test_only_the_same_training_goes_on_from_a_checkpoint(
    tmp_path: Path, seed: int, clip: float
) -> None:
    short = PARAMS.model_copy(update={"iterations": 4})
    finetune(planted(), short, top_k=4, checkpoints=tmp_path)
    seen: list[float] = []
    finetune(
        planted(seed=seed),
        short.model_copy(update={"clip": clip}),
        top_k=4,
        checkpoints=tmp_path,
        progress=lambda at, _: seen.append(at),
    )
    assert len(seen) == (0 if (seed, clip) == (0, 0.2) else 4)


def test_a_spoilt_checkpoint_is_named(tmp_path: Path) -> None:
    file = tmp_path / digest(planted(), PARAMS, 4) / CHECKPOINT
    file.parent.mkdir()
    file.write_bytes(b"no checkpoint")
    with pytest.raises(RoiflowError, match=r"checkpoint\.pt: not a checkpoint"):
        finetune(planted(), PARAMS, top_k=4, checkpoints=tmp_path)
