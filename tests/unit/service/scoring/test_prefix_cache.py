"""Prompts kept from one batch to the next: the same scores from fewer tokens, within a bound, gone when asked."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.scoring.decoder import speed_up
from service.scoring.heads import RewardHead
from service.scoring.prefix_cache import ID_BYTES, MANY, PromptCache
from service.scoring.prefix_sharing import cache_bytes_per_token
from service.scoring.reward_model import Encoded, RewardModel, RewardModelSpec
from support.checkpoints import checkpoint
from support.decoders import FAMILIES, MAX_LENGTH, VOCABULARY, classifier

BOUND = 1e-4
SLIDING = {"mistral", "gemma3"}
KEEPING = [family for family in FAMILIES if family not in SLIDING]
ROOM = 10 * (1 + ID_BYTES)  # of a cache whose tokens take a byte: ten of them

PROMPTS = st.lists(st.tuples(st.integers(0, 5), st.integers(8, 12), st.integers(1, 2 * MANY)), max_size=30)


class Scorer(RewardModel):
    """The reward model's own scoring around a network that was never a folder."""

    def __init__(self, model: Any, max_bytes: int = 2**20) -> None:
        self.spec = RewardModelSpec("{prompt}{completion}", MAX_LENGTH, "tiny")
        self._backbone = model.base_model
        self._head = RewardHead("score", ((model.score.weight.float(), None),))
        self.prefix_sharing_disabled_reason = None
        self.num_computed = self.num_shared = 0
        self.prompts = PromptCache(max_bytes, cache_bytes_per_token(self._backbone, MAX_LENGTH))


def alone(model: Any, batch: list[Encoded]) -> list[float]:
    with torch.inference_mode():
        return [model(input_ids=torch.tensor([one.ids])).logits.item() for one in batch]


def drawn(draw: random.Random, count: int) -> tuple[int, ...]:
    return tuple(draw.choices(range(3, VOCABULARY), k=count))


@pytest.mark.parametrize("fast", [False, True], ids=["attention", "layers"])
@pytest.mark.parametrize("family", KEEPING)
def test_completions_that_come_later_score_as_they_do_alone(family: str, fast: bool) -> None:
    """Batches of singles and groups over few prompts: of some the model has the prompt, of some it has not, one prompt
    continues another, and a completion may be empty."""
    plain, model, draw = classifier(family), classifier(family), random.Random(family)
    if fast and not speed_up(model.base_model):
        pytest.skip("no AVX-512 here, or a torch without the operator")
    scorer = Scorer(model)
    prompts = [drawn(draw, length) for length in (9, 20, 20, 50)]
    prompts.append(prompts[1] + drawn(draw, 15))
    for _ in range(12):
        batch = []
        for _ in range(draw.choice([1, 1, 3, 12])):
            prompt = draw.choice(prompts)
            own = drawn(draw, draw.choice([0, 1, 2, 5, 30]))
            batch.append(Encoded(prompt + own, len(prompt), truncated=False))
        assert scorer.score(batch) == pytest.approx(alone(plain, batch), abs=BOUND)
    assert scorer.prompts.hits > 12
    assert scorer.num_shared > 0
    scorer.num_computed = 0
    scorer.score([Encoded((*prompt, 5, 6), len(prompt), truncated=False) for prompt in prompts])
    assert scorer.num_computed == 2 * len(prompts), "nothing but what is behind the prompts"


def test_in_bfloat16_too() -> None:
    exact, draw = classifier("qwen2"), random.Random(5)
    scorer, prompt = Scorer(classifier("qwen2").bfloat16()), drawn(draw, 40)
    batch = [Encoded(prompt + drawn(draw, 9), 40, truncated=False) for _ in range(8)]
    right = alone(exact, batch)

    assert [scorer.score([one])[0] for one in batch] == pytest.approx(right, abs=0.1 * max(map(abs, right)))
    assert scorer.prompts.hits == 7


@pytest.mark.parametrize("family", sorted(SLIDING))
def test_under_a_sliding_window_nothing_is_kept(family: str) -> None:
    scorer, draw = Scorer(classifier(family)), random.Random(1)
    prompt = drawn(draw, 40)
    batch = [Encoded(prompt + drawn(draw, 5), 40, truncated=False)]
    assert scorer.score(batch) == scorer.score(batch) == pytest.approx(alone(classifier(family), batch), abs=BOUND)
    assert (scorer.prompts.hits, scorer.prompts.nbytes) == (0, 0)


def test_a_model_that_does_not_continue_its_own_keys_keeps_nothing() -> None:
    """Its layers read where in the row a token is, which is another place once the prompt is not in it."""
    model = classifier("qwen2").base_model
    assert (
        cache_bytes_per_token(model, MAX_LENGTH) == 2 * 2 * 2 * 8 * 4
    )  # layers, keys and values, heads, size, float32
    model.embed_tokens.register_forward_hook(lambda module, given, out: out + torch.arange(out.shape[1])[:, None])
    assert cache_bytes_per_token(model, MAX_LENGTH) == 0


@settings(deadline=None, derandomize=True, max_examples=200)
@given(asked=PROMPTS)
def test_what_is_kept_never_passes_the_bound_and_the_oldest_goes_first(asked: list[tuple[int, int, int]]) -> None:
    cache, used = PromptCache(3 * ROOM, 1), []
    for letter, length, completions in asked:
        prompt = (letter,) * length
        if cache.find(prompt) is None:
            with cache.admitted({prompt: completions}) as lists:
                for layers in lists.values():
                    layers.append(prompt)
        if prompt in cache:
            used = [*(other for other in used if other != prompt), prompt]
        assert cache.nbytes <= 3 * ROOM
    left = [prompt for prompt in used if prompt in cache]
    assert left == used[len(used) - len(left) :]
    assert cache.nbytes == sum(map(len, left)) * (1 + ID_BYTES)
    assert all(cache.find(prompt) == [prompt] for prompt in left)


def test_a_prompt_of_many_completions_is_kept_when_it_comes_back() -> None:
    cache, prompt = PromptCache(ROOM, 1), (7,) * 9
    with cache.admitted({prompt: MANY}) as first:
        assert first == {}
    with cache.admitted({prompt: MANY}) as second:
        assert list(second) == [prompt]


def test_what_has_no_room_or_saves_nothing_is_not_kept() -> None:
    cache = PromptCache(ROOM, 1)
    with cache.admitted({(1,) * 11: 1, (2,) * 7: 1}) as lists:
        assert lists == {}
    off = PromptCache()
    with off.admitted({(1,) * 9: 1}) as lists:
        assert lists == {}
    assert off.find((1,) * 9) is None
    assert off.misses == 0


def test_a_batch_that_fails_leaves_no_prompt_behind() -> None:
    cache, prompt = PromptCache(ROOM, 1), (7,) * 9
    with pytest.raises(RuntimeError, match="on the way"), cache.admitted({prompt: 1}):
        raise RuntimeError("on the way")
    assert prompt not in cache
    assert cache.nbytes == 0


def test_out_of_memory_lets_go_of_prompts_before_a_batch_is_made_smaller() -> None:
    model, draw = classifier("qwen2"), random.Random(3)
    scorer, prompt = Scorer(model), drawn(draw, 40)
    batch = [Encoded(prompt + drawn(draw, 9), 40, truncated=False)]
    scorer.score(batch)
    assert prompt in scorer.prompts

    def full(module: Any, given: Any) -> None:
        if scorer.prompts.nbytes:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    model.base_model.layers[0].register_forward_pre_hook(full)
    for _ in range(2):  # and nothing of that size is kept again
        assert scorer.score(batch) == pytest.approx(alone(classifier("qwen2"), batch), abs=BOUND)
    assert prompt not in scorer.prompts


def test_memory_that_runs_out_without_prompts_is_told_as_ever() -> None:
    model = classifier("qwen2")
    scorer = Scorer(model, max_bytes=0)

    def full(module: Any, given: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    model.base_model.layers[0].register_forward_pre_hook(full)
    with pytest.raises(RuntimeError, match="allocate memory"):
        scorer.score([Encoded((3, 4, 5), 0, truncated=False)])


def test_deterministic_keeps_nothing_and_a_closed_model_has_let_go(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    fixed = RewardModel.load(folder, deterministic=True, max_prompt_bytes=2**20)
    model = RewardModel.load(folder, max_prompt_bytes=2**20)
    batch = [model.encode("def add(a, b):\n    '''The sum.'''\n", "    return a + b\n")]
    for each in (fixed, model):
        each.score(batch)
        each.score(batch)

    assert (fixed.prompts.hits, fixed.prompts.nbytes) == (0, 0)
    assert model.prompts.hits == 1
    assert model.prompts.nbytes > 0
    model.close()
    assert model.prompts.nbytes == 0
