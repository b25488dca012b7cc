import pytest
import torch

from roiflow.ranking.network import Dropout


def test_a_share_of_the_elements_is_dropped_and_the_mean_is_kept() -> None:
    torch.manual_seed(0)
    x = torch.ones(999, 1001, requires_grad=True)
    dropped = Dropout(0.3)(x)
    # standard error of a share of 10^6 draws: 0.0005
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.002)
    assert dropped.max().item() == pytest.approx(1 / 0.7, rel=1e-4)
    assert dropped.mean().item() == pytest.approx(1, abs=0.003)
    dropped.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, dropped.detach())


def test_neighbours_are_dropped_apart() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(400_000)) > 0).float().reshape(-1, 4)
    joint = kept.T @ kept / kept.shape[0]
    expected = 0.25 * torch.ones(4, 4) + 0.25 * torch.eye(4)
    torch.testing.assert_close(joint, expected, rtol=0, atol=0.01)


def test_the_same_seed_drops_the_same() -> None:
    torch.manual_seed(5)
    first = Dropout(0.2)(torch.ones(7, 3))
    torch.manual_seed(5)
    torch.testing.assert_close(Dropout(0.2)(torch.ones(7, 3)), first)


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.4, False)])
def test_all_stays_without_a_share_and_in_evaluation(p: float, training: bool) -> None:
    x = torch.randn(5, 6)
    assert Dropout(p).train(training)(x) is x
