import numpy as np
import pytest
import torch

from roiflow.features.table import Floats, Longs
from roiflow.policy import network, plackett_luce, ppo
from roiflow.policy.environment import slate_rewards
from tests.unit.policy.worlds import PARAMS, planted

RNG_SEED = 3


def start_policy(hidden: int = 8) -> network.SlatePolicy:
    return network.start(
        planted(),
        PARAMS,
        top_k=4,
        network=network.Network.start(hidden, np.random.default_rng(0)),
    )


def requests(absent: bool = False) -> ppo.Requests:
    policy, sets = start_policy(), planted(30)
    start = policy.start_logits(sets)
    if absent:
        start[::2, -1] = -np.inf
    return ppo.Requests(start, policy.inputs(sets), sets.value(1.0))


def log_likelihood(logit: torch.Tensor, choices: Longs) -> torch.Tensor:
    held = torch.from_numpy(ppo.taken(choices, logit.shape[1]))
    log = ppo.slot_log_probabilities(logit, held)
    return ppo.chosen_log_probabilities(log, torch.from_numpy(choices)).sum()


@pytest.mark.parametrize("slots", [1, 2, 4, 6])
@pytest.mark.parametrize("absent", [False, True])
def test_torch_and_numpy_agree(slots: int, absent: bool) -> None:
    logit = requests(absent).start
    choices, log = ppo.sample_slates(logit, 3, slots, np.random.default_rng(RNG_SEED))
    tensor = torch.from_numpy(np.maximum(logit, ppo.NEVER))
    held = torch.from_numpy(ppo.taken(choices, logit.shape[1]))
    found = ppo.chosen_log_probabilities(
        ppo.slot_log_probabilities(tensor, held), torch.from_numpy(choices)
    )
    np.testing.assert_allclose(found.numpy(), log, atol=1e-12)


def test_gradient_of_the_log_likelihood() -> None:
    # d log P / d logit = chosen - sum over slots of the probabilities at that slot.
    weights = np.array([[1.0, 2.0, 3.0]])
    logit = torch.tensor(np.log(weights), requires_grad=True)
    torch.autograd.backward(log_likelihood(logit, np.array([[[2, 0]]])))
    expected = [[1 - 1 / 6 - 1 / 3, 0 - 2 / 6 - 2 / 3, 1 - 3 / 6]]
    assert logit.grad is not None
    np.testing.assert_allclose(logit.grad.numpy(), expected, atol=1e-14)


def test_gradient_against_finite_differences() -> None:
    rng = np.random.default_rng(4)
    logit = rng.normal(size=(3, 5))
    choices, _ = ppo.sample_slates(logit, 2, 3, rng)
    tensor = torch.tensor(logit, requires_grad=True)
    torch.autograd.backward(log_likelihood(tensor, choices))
    step = 1e-6
    flat = np.repeat(choices.reshape(3, 2, 3), 1, axis=1)

    def total(values: Floats) -> float:
        repeated = np.repeat(values, 2, axis=0)
        return float(plackett_luce.log_likelihood(repeated, flat.reshape(-1, 3)).sum())

    for place in np.ndindex(3, 5):
        up, down = logit.copy(), logit.copy()
        up[place] += step
        down[place] -= step
        slope = (total(up) - total(down)) / (2 * step)
        assert tensor.grad is not None
        assert float(tensor.grad[place]) == pytest.approx(slope, abs=1e-7)


def test_torch_network_is_the_numpy_network() -> None:
    net = network.Network.start(8, np.random.default_rng(1))
    x = np.random.default_rng(2).normal(size=(5, 4, network.FEATURES))
    np.testing.assert_allclose(
        ppo.Residual(net)(torch.from_numpy(x)).detach().numpy(), net(x), atol=1e-14
    )


def test_taken_hand_worked() -> None:
    held = ppo.taken(np.array([[[2, 0, -1]]]), 3)
    np.testing.assert_array_equal(held[0, 0], [[0, 0, 0], [0, 0, 1], [1, 0, 1]])


def test_advantages_hand_worked() -> None:
    # One slot, rewards 6, 2, 1: each minus the mean of the other two, over 2.
    value = np.array([[6.0, 2.0, 1.0]])
    found = ppo.advantages(value, np.array([[[0], [1], [2]]]), 2.0)
    np.testing.assert_allclose(found[0, :, 0], [2.25, -0.75, -1.5])


def test_the_baseline_leaves_the_policy_gradient_unbiased() -> None:
    # E[advantage x score] over many samples is the gradient of the expected reward.
    logit = np.log([[1.0, 2.0, 3.0]])
    value = np.array([[5.0, 1.0, 2.0]])
    groups = 40_000
    choices, _ = ppo.sample_slates(np.repeat(logit, groups, axis=0), 2, 2, np.random.default_rng(5))
    weight = torch.from_numpy(ppo.advantages(np.repeat(value, groups, axis=0), choices, 1.0))
    tensor = torch.tensor(logit, requires_grad=True)
    held = torch.from_numpy(ppo.taken(choices, 3))
    log = ppo.chosen_log_probabilities(
        ppo.slot_log_probabilities(tensor.expand(groups, 3), held), torch.from_numpy(choices)
    )
    torch.autograd.backward((weight * log).sum() / (2 * groups))
    slates = np.array([[a, b] for a in range(3) for b in range(3) if a != b])
    reward = slate_rewards(np.repeat(value, 6, axis=0), slates)

    def expected(values: Floats) -> float:
        likelihood = plackett_luce.log_likelihood(np.repeat(values, 6, axis=0), slates)
        return float(np.sum(np.exp(likelihood) * reward))

    for candidate in range(3):
        step = np.zeros((1, 3))
        step[0, candidate] = 1e-5
        slope = (expected(logit + step) - expected(logit - step)) / 2e-5
        assert tensor.grad is not None
        assert float(tensor.grad[0, candidate]) == pytest.approx(slope, abs=0.02)


def test_clipping_hand_worked() -> None:
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1], dtype=torch.float64)
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0], dtype=torch.float64)
    np.testing.assert_allclose(
        ppo.clipped_objective(torch.log(ratio), advantage, 0.2), [1.2, -1.5, 0.5, -0.8, 2.2]
    )


def test_divergence_and_entropy_hand_worked() -> None:
    policy = torch.log(torch.tensor([[0.5, 0.5]], dtype=torch.float64))
    start = torch.log(torch.tensor([[0.8, 0.2]], dtype=torch.float64))
    expected = 0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(0.5 / 0.2)
    assert ppo.divergence(policy, start).item() == pytest.approx(expected)
    assert ppo.entropy(policy).item() == pytest.approx(np.log(2))


def test_no_step_where_no_choice_matters() -> None:
    given = requests()
    same = ppo.Requests(given.start, given.inputs, np.ones_like(given.value))
    choices, log = ppo.sample_slates(same.start, 4, 2, np.random.default_rng(0))
    assert ppo.reward_scale(same.value, choices) == 1
    residual = ppo.Residual(start_policy().network)
    before = [weight.detach().clone() for weight in residual.parameters()]
    batch = ppo.Batch(choices, log, ppo.advantages(same.value, choices, 1.0))
    params = PARAMS.model_copy(update={"entropy_weight": 0.0})
    ppo.update(residual, torch.optim.SGD(residual.parameters(), lr=1.0), same, batch, params)
    for old, new in zip(before, residual.parameters(), strict=True):
        np.testing.assert_allclose(new.detach(), old, atol=1e-12)


def test_adam_steps_as_torch_does_to_the_bit() -> None:
    rng = np.random.default_rng(3)
    first = network.Network.start(4, rng)
    ours, theirs = ppo.Residual(first), ppo.Residual(first)
    optimizer = ppo.Adam(ours, 0.01)
    reference = torch.optim.Adam(theirs.parameters(), lr=0.01)
    x = torch.from_numpy(rng.normal(size=(20, network.FEATURES)))
    for _ in range(5):
        for residual in (ours, theirs):
            torch.autograd.backward((residual(x) - x.sum(dim=1)).square().sum())
        optimizer.step()
        reference.step()
        reference.zero_grad()
    for mine, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, expected)
    assert not torch.equal(ours.output_weight, torch.tensor(first.output_weight))
