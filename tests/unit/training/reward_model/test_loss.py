"""The loss of a pair, its margin and its centring: by hand."""

from __future__ import annotations

import math

import pytest
import torch

from plaudit.errors import UsageError
from training.reward_model.loss import bradley_terry, gaps_of, pointwise, preference_loss

CHOSEN, REJECTED = torch.tensor([2.0, 0.5]), torch.tensor([1.0, 1.5])


def test_a_margin_is_what_a_gap_has_to_reach_before_it_counts() -> None:
    by_hand = [math.log1p(math.exp(-(1.0 - 0.3))), math.log1p(math.exp(-(-1.0 - 0.6)))]
    loss = preference_loss(CHOSEN, REJECTED, margin=torch.tensor([0.3, 0.6]))
    assert loss.item() == pytest.approx(sum(by_hand) / 2)


def test_centring_adds_the_square_of_the_sum_and_nothing_else() -> None:
    plain, centred = preference_loss(CHOSEN, REJECTED), preference_loss(CHOSEN, REJECTED, centre=0.01)
    assert (centred - plain).item() == pytest.approx(0.01 * (3.0**2 + 2.0**2) / 2, abs=1e-6)


def test_a_weight_of_two_counts_a_pair_twice() -> None:
    weighted = preference_loss(CHOSEN, REJECTED, weight=torch.tensor([2.0, 1.0])).item() * 2
    repeated = preference_loss(CHOSEN[[0, 0, 1]], REJECTED[[0, 0, 1]]).item() * 3
    assert weighted == pytest.approx(repeated)


def test_the_loss_is_computed_in_float32() -> None:
    assert preference_loss(CHOSEN.bfloat16(), REJECTED.bfloat16(), centre=0.1).dtype == torch.float32


def test_the_group_loop_gives_its_pairs_the_same_loss() -> None:
    scores = torch.tensor([2.0, 1.0, 0.0])
    found = bradley_terry(scores, [(0, 1), (1, 2)], gaps_of(0.5, [(1.0, 0.4), (0.4, 0.0)]), 0.02)
    expected = preference_loss(scores[[0, 1]], scores[[1, 2]], margin=torch.tensor([0.3, 0.2]), centre=0.02)
    assert found.item() == pytest.approx(expected.item())


def test_scale_bt_multiplies_a_pairs_loss_by_its_gap() -> None:
    """AceCoder's ScaleBT: m · -log sigmoid(difference), m three times the gap."""
    scores = torch.tensor([2.0, 1.0, 0.0])
    found = bradley_terry(scores, [(0, 1), (1, 2)], weights=gaps_of(3.0, [(1.0, 0.4), (0.4, 0.0)]))
    assert found.item() == pytest.approx((1.8 + 1.2) * math.log(1 + math.exp(-1.0)) / 2)


def test_a_margin_without_pass_rates_is_refused() -> None:
    with pytest.raises(UsageError, match=r"fit\.margin and fit\.scale need pass rates"):
        gaps_of(1.0, [(1.0, None)])


def test_bradley_terry_by_hand() -> None:
    scores = torch.tensor([2.0, 0.0, 1.0])
    by_hand = (math.log(1 + math.exp(-2.0)) + math.log(1 + math.exp(1.0))) / 2
    assert bradley_terry(scores, [(0, 1), (1, 2)]).item() == pytest.approx(by_hand)


def test_bradley_terry_is_computed_in_float32() -> None:
    assert bradley_terry(torch.tensor([1.0, 0.0], dtype=torch.bfloat16), [(0, 1)]).dtype == torch.float32


def test_bradley_terry_pushes_only_the_difference() -> None:
    scores = torch.tensor([0.3, -0.2, 0.9], requires_grad=True)
    torch.autograd.backward(bradley_terry(scores, [(0, 1), (0, 2)]))
    assert scores.grad is not None
    assert scores.grad.sum().item() == pytest.approx(0.0, abs=1e-7)
    assert scores.grad[0] < 0 < scores.grad[1]


def test_pointwise_reads_a_score_as_log_odds() -> None:
    assert pointwise(torch.tensor([0.0, 0.0]), [True, False]).item() == pytest.approx(math.log(2))
