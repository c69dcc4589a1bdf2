"""Proximal policy optimisation of a causal language model against a score per completion, in one file.

An iteration samples completions with the current policy, scores them, and makes a few clipped steps on them:

    r_t   = -kl · (log π_t - log ref_t) + [t is last] · whitened score      KL to the reference as a token's reward
    δ_t   = r_t + γ V_{t+1} - V_t
    A_t   = δ_t + γλ A_{t+1},   R_t = A_t + V_t                             GAE (arXiv 1506.02438, eq. 16)
    L_pi  = mean max(-A ρ, -A clip(ρ, 1-ε, 1+ε)),   ρ_t = exp(log π_t - log π_t^old)     (arXiv 1707.06347, eq. 7)
    L_V   = ½ mean max((V - R)², (V^old + clip(V - V^old, ±ε_V) - R)²)

The value head reads the policy's own hidden states: V_t is the value before token t. Advantages are whitened over the
iteration's tokens. Scores are whitened over the iteration's completions (mean 0, variance 1), so the KL weight means
the same for every reward model; the KL part is not whitened. A token is an action from the completion's first to its
end token, which is one; a completion that was cut before its end has `NO_END_PENALTY` taken off its whitened score.
π and ref are the distributions that are sampled from: both models' logits are divided by the sampling temperature.

Everything is float32 unless the caller opens an autocast; the device is the model's. Only the CPU path has been run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from training.pipeline.config import PPOConfig

VALUE_CLIP = 0.2  # ε_V: how far a value may move in one iteration
VALUE_WEIGHT = 0.1  # of L_V in the loss
NO_END_PENALTY = 1.0

# Completions' texts under their prompts' numbers → one score each.
Scorer = Callable[[Sequence[int], Sequence[Sequence[int]]], list[float]]


class ActorCritic(nn.Module):
    """A causal language model, sampled at `temperature`, and a value head, which begins at zero."""

    def __init__(self, model: Any, temperature: float = 1.0) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature
        self.value = nn.Linear(model.config.hidden_size, 1, device=model.device)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Log-probabilities and values (B, A) of the actions; what the mask hides is 0."""
        hidden = hidden_states(self.model, rollout)  # (B, A, H): before each action
        values = self.value(hidden.float())[..., 0] * rollout.mask
        return log_probabilities(self.model, hidden, rollout, self.temperature), values


@dataclass(frozen=True, slots=True)
class Rollout:
    """Completions as actions. Prompts are padded on the left, so that every completion begins in column P.

    `ids`: (B, P + A) · `real`: (B, P + A), 0 on padding · `mask`: (B, A), 1.0 on actions · `prompts`: P.
    """

    ids: Tensor
    real: Tensor
    mask: Tensor
    prompts: int

    def rows(self, index: Tensor) -> Rollout:
        """These completions alone."""
        return Rollout(self.ids[index], self.real[index], self.mask[index], self.prompts)


def rollout_of(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], device: Any = None) -> Rollout:
    """Prompts and completions (end tokens included) as tensors; an empty completion cannot be learnt from."""
    if not all(completions):
        raise ValueError("a completion without a token")
    width, actions = max(map(len, prompts)), max(map(len, completions))
    ids = torch.zeros(len(prompts), width + actions, dtype=torch.long, device=device)
    real = torch.zeros_like(ids)
    for at, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        ids[at, width - len(prompt) : width + len(completion)] = torch.tensor([*prompt, *completion])
        real[at, width - len(prompt) : width + len(completion)] = 1
    return Rollout(ids, real, real[:, width:].float(), width)


def hidden_states(model: Any, rollout: Rollout) -> Tensor:
    """(B, A, H): the last hidden state at the token before each action."""
    positions = (rollout.real.cumsum(1) - 1).clamp(min=0)
    found = model.model(input_ids=rollout.ids, attention_mask=rollout.real, position_ids=positions, use_cache=False)
    hidden: Tensor = found.last_hidden_state[:, rollout.prompts - 1 : -1]
    return hidden


def log_probabilities(model: Any, hidden: Tensor, rollout: Rollout, temperature: float = 1.0) -> Tensor:
    """(B, A): log-probability of each action when sampling at this temperature, 0 where there is none."""
    logits = model.lm_head(hidden).float() / temperature  # (B, A, V)
    chosen = rollout.ids[:, rollout.prompts :, None]
    found: Tensor = logits.log_softmax(-1).gather(-1, chosen)[..., 0] * rollout.mask
    return found


def whiten(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean 0 and variance 1 over what the mask keeps; a constant becomes 0."""
    mask = torch.ones_like(values) if mask is None else mask
    count = mask.sum()
    centred = (values - (values * mask).sum() / count) * mask
    return centred * torch.rsqrt(centred.square().sum() / count + 1e-8)


def token_rewards(scores: Tensor, log_probs: Tensor, reference: Tensor, mask: Tensor, kl: float) -> Tensor:
    """(B, A): the KL penalty of every action, and the score (B,) on the last."""
    rewards = -kl * (log_probs - reference) * mask
    last = mask.sum(1).long() - 1
    rewards[torch.arange(len(scores), device=scores.device), last] += scores
    return rewards


def advantages(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimates (B, A). Nothing follows the last action: its next value is 0."""
    found = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(following)
    for at in reversed(range(rewards.shape[1])):
        delta = rewards[:, at] + gamma * next_value - values[:, at]
        following = (delta + gamma * lam * following) * mask[:, at]
        next_value = values[:, at] * mask[:, at]
        found[:, at] = following
    return found


def policy_loss(log_probs: Tensor, old: Tensor, gains: Tensor, mask: Tensor, clip: float) -> Tensor:
    """The clipped objective, negated, over the actions that the mask keeps."""
    ratio = (log_probs - old).exp()
    loss = torch.maximum(-gains * ratio, -gains * ratio.clamp(1 - clip, 1 + clip))
    return (loss * mask).sum() / mask.sum()


def value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Half the larger of the squared errors of the value and of the value kept near the old one."""
    near = old + (values - old).clamp(-clip, clip)
    loss = torch.maximum((values - returns).square(), (near - returns).square())
    return 0.5 * (loss * mask).sum() / mask.sum()


class Learner:
    """A policy on its way: sample → score → learn, an iteration at a time."""

    def __init__(
        self, policy: ActorCritic, reference: Any, settings: PPOConfig, end: int, *, bfloat16: bool = False
    ) -> None:
        self.policy, self.reference, self.settings, self.end, self.bfloat16 = policy, reference, settings, end, bfloat16
        self.optimiser = torch.optim.AdamW(policy.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.0)

    def learn(
        self,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        scores: Sequence[float],
        generator: torch.Generator,
    ) -> dict[str, float]:
        """One iteration on these completions of the current policy; `generator` orders the minibatches."""
        settings, device = self.settings, self.policy.value.weight.device
        rollout = rollout_of(prompts, completions, device)
        raw = torch.tensor(scores, dtype=torch.float32, device=device)
        ended = torch.tensor([ids[-1] == self.end for ids in completions], device=device)
        whole = whiten(raw) - NO_END_PENALTY * (~ended).float()
        with torch.no_grad(), self._precision():
            old, old_values = self.policy(rollout)
            hidden = hidden_states(self.reference, rollout)
            reference = log_probabilities(self.reference, hidden, rollout, self.policy.temperature)
        rewards = token_rewards(whole, old, reference, rollout.mask, settings.kl)
        gains = advantages(rewards, old_values, rollout.mask, settings.gamma, settings.lam)
        returns = gains + old_values
        gains = whiten(gains, rollout.mask)
        clipped, parts, steps = 0.0, torch.zeros(2), 0
        for _ in range(settings.epochs):
            order = torch.randperm(len(scores), generator=generator)
            for start in range(0, len(scores), settings.minibatch):
                index = order[start : start + settings.minibatch]
                part = rollout.rows(index)
                with self._precision():
                    log_probs, values = self.policy(part)
                losses = torch.stack(
                    [
                        policy_loss(log_probs, old[index], gains[index], part.mask, settings.clip),
                        value_loss(values, old_values[index], returns[index], part.mask, VALUE_CLIP),
                    ]
                )
                torch.autograd.backward(losses[0] + VALUE_WEIGHT * losses[1])
                nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
                self.optimiser.step()
                self.optimiser.zero_grad(set_to_none=True)
                outside = ((log_probs - old[index]).exp() - 1).abs() > settings.clip
                clipped += float((outside * part.mask).sum() / part.mask.sum())
                parts, steps = parts + losses.detach().cpu(), steps + 1
        actions = rollout.mask.sum()
        return {
            "score": float(raw.mean()),
            "kl": float((old - reference).sum() / len(scores)),
            "policy_loss": float(parts[0]) / steps,
            "value_loss": float(parts[1]) / steps,
            "clipped": clipped / steps,
            "ended": float(ended.float().mean()),
            "tokens": float(actions) / len(scores),
        }

    def _precision(self) -> Any:
        return torch.autocast(self.policy.value.weight.device.type, torch.bfloat16, enabled=self.bfloat16)


def sample(
    model: Any, prompts: Sequence[Sequence[int]], settings: Any, end: int, seed: int, *, greedy: bool = False
) -> list[list[int]]:
    """One completion (ids, its end token included) of each of these prompts, all in one batch, by `seed`.

    `settings` has `max_new_tokens` and `temperature`; nothing else narrows the distribution.
    """
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    real = torch.zeros_like(ids)
    for at, prompt in enumerate(prompts):
        ids[at, width - len(prompt) :] = torch.tensor(prompt)
        real[at, width - len(prompt) :] = 1
    drawn: dict[str, Any] = {} if greedy else {"temperature": settings.temperature, "top_k": 0, "top_p": 1.0}
    torch.manual_seed(seed)
    with torch.no_grad():
        made = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=real.to(model.device),
            do_sample=not greedy,
            max_new_tokens=settings.max_new_tokens,
            eos_token_id=end,
            pad_token_id=end,
            use_cache=True,
            **drawn,
        )[:, width:].tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in made]
