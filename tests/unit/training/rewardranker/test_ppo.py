"""PPO by hand: every formula of training/rewardranker/ppo.py against numbers computed without it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from training.pipeline.config import IterateConfig, PPOConfig
from training.rewardranker.ppo import (
    ActorCritic,
    PPOTrainer,
    generalised_advantages,
    generate,
    make_rollout,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)

END = 3
PROMPTS = [[5, 6, 7], [8, 9]]
COMPLETIONS = [[10, 11, END], [12, END]]


def tiny(seed: int = 1) -> Any:
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=20,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            pad_token_id=0,
            eos_token_id=END,
            bos_token_id=None,
            tie_word_embeddings=True,
        )
    ).eval()


def test_gae_by_hand() -> None:
    rewards = torch.tensor([[0.0, 0.0, 1.0], [0.5, 2.0, 9.0]])
    values = torch.tensor([[0.2, 0.4, 0.6], [0.1, 0.3, 7.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    found = generalised_advantages(rewards, values, mask, gamma=0.9, lam=0.5)
    third = 1.0 - 0.6
    second = (0.9 * 0.6 - 0.4) + 0.45 * third
    first = (0.9 * 0.4 - 0.2) + 0.45 * second
    assert found[0].tolist() == pytest.approx([first, second, third])
    last = 2.0 - 0.3  # nothing of the padding behind it counts
    assert found[1].tolist() == pytest.approx([0.5 + 0.9 * 0.3 - 0.1 + 0.45 * last, last, 0.0])


def test_with_lambda_one_an_advantage_is_the_return_less_the_value() -> None:
    rewards, values = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, -0.5, 4.0]])
    found = generalised_advantages(rewards, values, torch.ones(1, 3), gamma=1.0, lam=1.0)
    assert found[0].tolist() == pytest.approx([6.0 - 0.5, 5.0 + 0.5, 3.0 - 4.0])


def test_the_score_stands_on_the_last_action_and_the_kl_penalty_on_all() -> None:
    found = token_rewards(
        torch.tensor([2.0, -1.0]),
        torch.tensor([[-1.0, -2.0], [-3.0, 0.0]]),
        torch.tensor([[-1.5, -1.0], [-2.0, 0.0]]),
        torch.tensor([[1.0, 1.0], [1.0, 0.0]]),
        kl=0.1,
    )
    assert found[0].tolist() == pytest.approx([-0.05, 0.1 + 2.0])
    assert found[1].tolist() == pytest.approx([0.1 - 1.0, 0.0])


@pytest.mark.parametrize(
    ("ratio", "gain", "loss"),
    [(1.0, 2.0, -2.0), (1.5, 2.0, -2.4), (0.5, 2.0, -1.0), (1.5, -2.0, 3.0), (0.5, -2.0, 1.6)],
)
def test_the_clipped_objective_by_hand(ratio: float, gain: float, loss: float) -> None:
    old = torch.tensor([[-1.0, -5.0]])
    new = old + torch.tensor([[math.log(ratio), 3.0]])  # the second action is masked
    found = policy_loss(new, old, torch.tensor([[gain, 8.0]]), torch.tensor([[1.0, 0.0]]), clip=0.2)
    assert found.item() == pytest.approx(loss)


def test_beyond_the_clip_there_is_no_gradient() -> None:
    old = torch.tensor([[-1.0, -1.0]])
    new = torch.tensor([[-0.5, -1.0]], requires_grad=True)
    torch.autograd.backward(policy_loss(new, old, torch.tensor([[1.0, 1.0]]), torch.ones(1, 2), clip=0.2))
    assert new.grad is not None
    assert new.grad.tolist()[0] == pytest.approx([0.0, -0.5])


@pytest.mark.parametrize(("value", "loss"), [(1.0, 1.62), (0.1, 1.805), (2.5, 1.62)])
def test_the_value_loss_takes_the_larger_error_by_hand(value: float, loss: float) -> None:
    # Old value 0, return 2: 1.0 and 2.5 moved too far and are taken for 0.2, which errs by 1.8; 0.1 errs by 1.9.
    found = value_loss(torch.tensor([[value]]), torch.zeros(1, 1), torch.tensor([[2.0]]), torch.ones(1, 1), clip=0.2)
    assert found.item() == pytest.approx(loss)


def test_whitening_by_hand_and_of_a_constant() -> None:
    found = whiten(torch.tensor([1.0, 3.0, 100.0]), torch.tensor([1.0, 1.0, 0.0]))
    assert found.tolist() == pytest.approx([-1.0, 1.0, 0.0], abs=1e-4)
    assert whiten(torch.full((4,), 2.5)).tolist() == [0.0] * 4


def test_log_probabilities_under_left_padding_are_those_of_the_plain_forward() -> None:
    model = tiny()
    found, values = ActorCritic(model)(make_rollout(PROMPTS, COMPLETIONS))
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0].log_softmax(-1)
        plain = [logits[len(prompt) - 1 + at, token].item() for at, token in enumerate(completion)]
        assert found[row, : len(completion)].tolist() == pytest.approx(plain, abs=1e-5)
    assert found[1, 2].item() == 0.0
    assert values.abs().max().item() == 0.0  # the value head begins at zero


def test_log_probabilities_are_of_the_distribution_that_is_sampled_at_this_temperature() -> None:
    model = tiny()
    model.get_input_embeddings().weight.data.mul_(8.0)  # tied to the head: far from uniform
    logits = model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].detach()
    odds = (logits / 0.5).exp()
    likeliest = int(logits.argmax())
    found, _ = ActorCritic(model, temperature=0.5)(make_rollout(PROMPTS[:1], [[likeliest]]))
    assert found.item() == pytest.approx(math.log(odds[likeliest] / odds.sum()), abs=1e-4)
    settings = dataclasses.replace(IterateConfig(), max_new_tokens=1, temperature=0.5)
    drawn = generate(model, PROMPTS[:1] * 2000, settings, END, seed=1)
    share = sum(ids == [likeliest] for ids in drawn) / 2000
    assert share == pytest.approx(math.exp(found.item()), abs=0.05)  # more than four standard errors
    at_one, _ = ActorCritic(model)(make_rollout(PROMPTS[:1], [[likeliest]]))
    assert abs(share - math.exp(at_one.item())) > 0.1


def test_the_reference_is_taken_at_the_same_temperature() -> None:
    trainer = PPOTrainer(ActorCritic(tiny(), temperature=0.25), tiny(), dataclasses.replace(PPOConfig(), epochs=1), END)
    found = trainer.step(PROMPTS, COMPLETIONS, [1.0, -1.0], torch.Generator().manual_seed(1))
    assert found["kl"] == pytest.approx(0.0, abs=1e-5)


def test_the_first_step_has_ratio_one_and_no_kl() -> None:
    policy = ActorCritic(tiny())
    settings = dataclasses.replace(PPOConfig(), epochs=1, minibatch=8)
    found = PPOTrainer(policy, tiny(), settings, END).step(
        PROMPTS, COMPLETIONS, [1.0, -1.0], torch.Generator().manual_seed(1)
    )
    assert found["kl"] == pytest.approx(0.0, abs=1e-6)
    assert found["clipped"] == 0.0
    assert found["ended"] == 1.0


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_micro_batches_take_the_step_of_the_whole_minibatch(micro_batch: int) -> None:
    """Completions of different lengths, so that a mean of means would be another step."""
    prompts, completions = [[5, 6]] * 5, [[7, END], [8, 9, 10, 11, END], [7, 7, END], [END], [9, 9, 9, END]]
    scores = [1.0, -1.0, 0.5, 0.0, 2.0]

    def stepped(size: int) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        policy = ActorCritic(tiny())
        settings = dataclasses.replace(PPOConfig(), epochs=2, minibatch=4, micro_batch=size, lr=1e-3)
        found = PPOTrainer(policy, tiny(), settings, END).step(
            prompts, completions, scores, torch.Generator().manual_seed(1)
        )
        return found, policy.state_dict()

    (found, weights), (whole, expected) = stepped(micro_batch), stepped(0)
    assert found == pytest.approx(whole, abs=1e-5)
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-4, rtol=1e-3)


def test_it_learns_to_say_the_token_that_is_rewarded_and_stays_near_the_reference_if_told_to() -> None:
    def share(kl: float) -> float:
        policy, prompts = ActorCritic(tiny()), [[5, 6]] * 32
        trainer = PPOTrainer(policy, tiny(), dataclasses.replace(PPOConfig(), kl=kl, lr=5e-3, epochs=2), END)
        settings = dataclasses.replace(IterateConfig(), max_new_tokens=4)
        for at in range(30):
            completions = generate(policy.model, prompts, settings, END, seed=at)
            scores = [sum(token == 7 for token in ids) / len(ids) for ids in completions]
            trainer.step(prompts, completions, scores, torch.Generator().manual_seed(at))
        completions = generate(policy.model, prompts, settings, END, seed=99)
        return sum(ids.count(7) for ids in completions) / sum(map(len, completions))

    assert share(kl=0.0) > 0.5  # chance is one in twenty
    assert share(kl=20.0) < 0.2


def test_samples_are_a_function_of_the_seed_and_end_with_the_end_token() -> None:
    settings = dataclasses.replace(IterateConfig(), max_new_tokens=6)
    first, again, other = (generate(tiny(), PROMPTS * 4, settings, END, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert all(ids[-1] == END or len(ids) == 6 for ids in first)
    assert all(END not in ids[:-1] for ids in first)


def test_an_empty_completion_is_refused() -> None:
    with pytest.raises(ValueError, match="without a token"):
        make_rollout([[1]], [[]])
