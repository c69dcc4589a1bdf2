"""Proximal policy optimisation (PPO) of a causal language model against a score per completion, in one file.

An iteration samples completions with the current policy, scores them, and takes a few clipped steps on them:

    r_t   = -kl · (log π_t - log ref_t) + [t is last] · whitened score      KL penalty, per token
    δ_t   = r_t + γ V_{t+1} - V_t
    A_t   = δ_t + γλ A_{t+1},   R_t = A_t + V_t                             GAE (arXiv 1506.02438, eq. 16)
    L_pi  = mean max(-A ρ, -A clip(ρ, 1-ε, 1+ε)),   ρ_t = exp(log π_t - log π_t^old)     (arXiv 1707.06347, eq. 7)
    L_V   = ½ mean max((V - R)², (V^old + clip(V - V^old, ±ε_V) - R)²)

- The value head reads the policy's own hidden states; V_t is the value before token t.
- Advantages are whitened over the iteration's tokens. Scores are whitened over the iteration's completions (mean 0,
  variance 1), so the KL weight means the same for every reward model. The KL penalty is not whitened.
- Every token of a completion is an action, its end token included. A completion that was cut before its end has
  `NO_END_PENALTY` subtracted from its whitened score.
- π and ref are the distributions that are sampled from: both models' logits are divided by the sampling temperature.
- Everything is float32 unless the caller opens an autocast; the device is the model's. Only the CPU path has been run.

Shapes: B completions, P columns of prompts, A columns of actions, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from training.pipeline.config import PPOConfig

VALUE_CLIP = 0.2  # ε_V: how far a value may move in one iteration
VALUE_WEIGHT = 0.1  # of L_V in the loss
NO_END_PENALTY = 1.0


class ActorCritic(nn.Module):
    """The policy: a causal language model, sampled at `temperature`. And a value head, initialised to zero."""

    def __init__(self, model: Any, temperature: float = 1.0) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature
        self.value = nn.Linear(model.config.hidden_size, 1, device=model.device)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Log-probabilities and values of the actions, both (B, A), 0 where there is none."""
        hidden = hidden_states(self.model, rollout)  # (B, A, H): before each action
        values = self.value(hidden.float())[..., 0] * rollout.mask
        return log_probabilities(self.model, hidden, rollout, self.temperature), values


@dataclass(frozen=True, slots=True)
class Rollout:
    """Completions as actions. Prompts are padded on the left, so that every completion begins in column P."""

    ids: Tensor  # (B, P + A)
    attention_mask: Tensor  # (B, P + A), 0 on padding
    mask: Tensor  # (B, A), 1.0 on actions
    prompt_width: int  # P

    def rows(self, index: Tensor) -> Rollout:
        """The completions at these places."""
        return Rollout(self.ids[index], self.attention_mask[index], self.mask[index], self.prompt_width)


def make_rollout(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], device: Any = None) -> Rollout:
    """Prompts and completions (token ids, end tokens included) as tensors. Raises `ValueError` for an empty one."""
    if not all(completions):
        raise ValueError("a completion without a token has no action to learn from")
    ids, attention_mask = left_padded(prompts, completions)
    ids, attention_mask, width = ids.to(device=device), attention_mask.to(device=device), max(map(len, prompts))
    return Rollout(ids, attention_mask, attention_mask[:, width:].float(), width)


def left_padded(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and attention mask (B, P + A): prompts end in column P - 1, completions begin in column P."""
    width, actions = max(map(len, prompts)), max(map(len, completions))
    ids = torch.zeros(len(prompts), width + actions, dtype=torch.long)
    attention_mask = torch.zeros_like(ids)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        ids[row, width - len(prompt) : width + len(completion)] = torch.tensor([*prompt, *completion])
        attention_mask[row, width - len(prompt) : width + len(completion)] = 1
    return ids, attention_mask


def hidden_states(model: Any, rollout: Rollout) -> Tensor:
    """The last hidden state at the token before each action, (B, A, H)."""
    positions = (rollout.attention_mask.cumsum(1) - 1).clamp(min=0)  # (B, P + A)
    output = model.base_model(
        input_ids=rollout.ids, attention_mask=rollout.attention_mask, position_ids=positions, use_cache=False
    )
    hidden: Tensor = output.last_hidden_state[:, rollout.prompt_width - 1 : -1]
    return hidden


def log_probabilities(model: Any, hidden: Tensor, rollout: Rollout, temperature: float = 1.0) -> Tensor:
    """Log-probability of each action when sampling at this temperature, (B, A), 0 where there is none."""
    logits = model.get_output_embeddings()(hidden).float() / temperature  # (B, A, V)
    actions = rollout.ids[:, rollout.prompt_width :, None]  # (B, A, 1)
    log_probs: Tensor = logits.log_softmax(-1).gather(-1, actions)[..., 0] * rollout.mask
    return log_probs


def whiten(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Values shifted and scaled to mean 0 and variance 1 where the mask is 1; a constant becomes 0."""
    mask = torch.ones_like(values) if mask is None else mask
    count = mask.sum()
    centred = (values - (values * mask).sum() / count) * mask
    return centred * torch.rsqrt(centred.square().sum() / count + 1e-8)


def token_rewards(scores: Tensor, log_probs: Tensor, reference: Tensor, mask: Tensor, kl: float) -> Tensor:
    """Rewards (B, A): the KL penalty of every action, and the score (B,) on the last one."""
    rewards = -kl * (log_probs - reference) * mask
    last = mask.sum(1).long() - 1  # (B,)
    rewards[torch.arange(len(scores), device=scores.device), last] += scores
    return rewards


def generalised_advantages(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """Advantages (B, A) by GAE (arXiv 1506.02438, eq. 16). The value after the last action is 0.

    Args:
        rewards: (B, A).
        values: before each action, (B, A).
        mask: 1.0 on actions, (B, A).
        gamma: discount.
        lam: λ, between one-step (0) and Monte Carlo (1) advantages.
    """
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])  # (B,): A_{t+1}
    next_value = torch.zeros_like(following)  # (B,): V_{t+1}
    for at in reversed(range(rewards.shape[1])):
        delta = rewards[:, at] + gamma * next_value - values[:, at]
        following = (delta + gamma * lam * following) * mask[:, at]
        next_value = values[:, at] * mask[:, at]
        advantages[:, at] = following
    return advantages


def policy_loss(log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> Tensor:
    """The clipped objective (arXiv 1707.06347, eq. 7), negated, averaged over actions; all tensors (B, A)."""
    ratio = (log_probs - old).exp()
    loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))
    return (loss * mask).sum() / mask.sum()


def value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Half the larger squared error: of the value, or of the value clipped around the old one. Tensors (B, A)."""
    clipped = old + (values - old).clamp(-clip, clip)
    loss = torch.maximum((values - returns).square(), (clipped - returns).square())
    return 0.5 * (loss * mask).sum() / mask.sum()


class PPOTrainer:
    """Trains a policy, one iteration per `step`; memory is bounded by `settings.micro_batch`.

    Args:
        policy: trained in place.
        reference: the causal language model of the KL penalty, unchanged.
        settings: the recipe's `ppo`.
        end: id of the end token.
        bfloat16: autocast the forwards.
    """

    def __init__(
        self, policy: ActorCritic, reference: Any, settings: PPOConfig, end: int, *, bfloat16: bool = False
    ) -> None:
        self.policy, self.reference, self.settings, self.end, self.bfloat16 = policy, reference, settings, end, bfloat16
        self.optimiser = torch.optim.AdamW(policy.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.0)

    def step(
        self,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        scores: Sequence[float],
        generator: torch.Generator,
    ) -> dict[str, float]:
        """One iteration on B completions of the current policy.

        Args:
            prompts: token ids of each completion's prompt.
            completions: token ids, end token included.
            scores: of the completions.
            generator: orders the minibatches.

        Returns:
            means: score, kl and tokens per completion, losses and share of clipped ratios per step, share that ended.
        """
        settings, device = self.settings, self.policy.value.weight.device
        rollout = make_rollout(prompts, completions, device)
        raw = torch.tensor(scores, dtype=torch.float32, device=device)  # (B,)
        ended = torch.tensor([ids[-1] == self.end for ids in completions], device=device)  # (B,)
        rewards = whiten(raw) - NO_END_PENALTY * (~ended).float()
        with torch.no_grad(), self._precision():
            parts = [self._before(rollout.rows(index)) for index in self._micro_batches(torch.arange(len(scores)))]
            old, old_values, reference = map(torch.cat, zip(*parts, strict=True))  # (B, A) each
        per_token = token_rewards(rewards, old, reference, rollout.mask, settings.kl)
        advantages = generalised_advantages(per_token, old_values, rollout.mask, settings.gamma, settings.lam)
        returns = advantages + old_values
        advantages = whiten(advantages, rollout.mask)
        num_clipped, sums, num_steps = 0.0, torch.zeros(2), 0
        for _ in range(settings.epochs):
            order = torch.randperm(len(scores), generator=generator)
            for start in range(0, len(scores), settings.minibatch):
                index = order[start : start + settings.minibatch]
                losses, clipped = self._minibatch(rollout, index, old, old_values, advantages, returns)
                num_clipped, sums, num_steps = num_clipped + clipped, sums + losses, num_steps + 1
        return {
            "score": float(raw.mean()),
            "kl": float((old - reference).sum() / len(scores)),
            "policy_loss": float(sums[0]) / num_steps,
            "value_loss": float(sums[1]) / num_steps,
            "clipped": num_clipped / num_steps,
            "ended": float(ended.float().mean()),
            "tokens": float(rollout.mask.sum()) / len(scores),
        }

    def _micro_batches(self, index: Tensor) -> Sequence[Tensor]:
        """What goes through the models at a time: logits are (rows, A, V), so this bounds the memory."""
        size = self.settings.micro_batch or len(index)
        return [index[at : at + size] for at in range(0, len(index), size)]

    def _before(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities and values of the policy, and log-probabilities of the reference, each (rows, A)."""
        log_probs, values = self.policy(rollout)
        hidden = hidden_states(self.reference, rollout)
        return log_probs, values, log_probabilities(self.reference, hidden, rollout, self.policy.temperature)

    def _minibatch(
        self, rollout: Rollout, index: Tensor, old: Tensor, old_values: Tensor, advantages: Tensor, returns: Tensor
    ) -> tuple[Tensor, float]:
        """One optimiser step on these rows. Policy and value loss (2,), and the share of ratios outside the clip.

        Losses are means over the actions of the whole minibatch: each micro-batch adds its share to the gradient.
        """
        settings, num_actions = self.settings, rollout.mask[index].sum()
        sums, num_outside = torch.zeros(2), 0.0
        for rows in self._micro_batches(index):
            batch = rollout.rows(rows)
            share = batch.mask.sum() / num_actions
            with self._precision():
                log_probs, values = self.policy(batch)
            losses = share * torch.stack(
                [
                    policy_loss(log_probs, old[rows], advantages[rows], batch.mask, settings.clip),
                    value_loss(values, old_values[rows], returns[rows], batch.mask, VALUE_CLIP),
                ]
            )
            torch.autograd.backward(losses[0] + VALUE_WEIGHT * losses[1])
            outside = ((log_probs.detach() - old[rows]).exp() - 1).abs() > settings.clip
            sums, num_outside = sums + losses.detach().cpu(), num_outside + float((outside * batch.mask).sum())
        nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return sums, num_outside / float(num_actions)

    def _precision(self) -> Any:
        return torch.autocast(self.policy.value.weight.device.type, torch.bfloat16, enabled=self.bfloat16)


def generate(
    model: Any, prompts: Sequence[Sequence[int]], settings: Any, end: int, seed: int, *, greedy: bool = False
) -> list[list[int]]:
    """Sample one completion per prompt, all in one batch.

    Args:
        model: a causal language model.
        prompts: token ids.
        settings: `max_new_tokens` and `temperature`; nothing else narrows the distribution.
        end: id of the end token.
        seed: the completions are a function of it.
        greedy: take the most likely token instead of sampling.

    Returns:
        token ids of the completions, end token included.
    """
    width = max(map(len, prompts))
    ids, attention_mask = left_padded(prompts, [()] * len(prompts))  # (B, P) each
    sampling: dict[str, Any] = {} if greedy else {"temperature": settings.temperature, "top_k": 0, "top_p": 1.0}
    torch.manual_seed(seed)
    with torch.no_grad():
        completions = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=attention_mask.to(model.device),
            do_sample=not greedy,
            max_new_tokens=settings.max_new_tokens,
            eos_token_id=end,
            pad_token_id=end,
            use_cache=True,
            **sampling,
        )[:, width:].tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in completions]
