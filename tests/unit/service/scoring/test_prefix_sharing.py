"""A score is the one that Hugging Face gives to the sequence alone, however much of it was shared."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from service.scoring.attention import PIECE, Unsharable, packed
from service.scoring.heads import RewardHead
from service.scoring.packing import Ids, pack
from service.scoring.prefix_cache import PromptCache
from service.scoring.prefix_sharing import why_not
from service.scoring.reward_model import Encoded, RewardModel, RewardModelSpec
from service.scoring.scheduler import Scheduler, SequenceGroup
from support.decoders import FAMILIES, MAX_LENGTH, VOCABULARY, WINDOW, classifier

BOUND = 1e-4
FIVE = ["qwen2", "qwen3", "llama", "mistral", "gemma"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


class Scorer(RewardModel):
    """The reward model's own scoring around a network that was never a folder."""

    def __init__(self, model: Any, *, deterministic: bool = False) -> None:
        self.spec = RewardModelSpec("{prompt}{completion}", MAX_LENGTH, "tiny")
        self._backbone = model.base_model
        self._head = RewardHead("score", ((model.score.weight.float(), None),))
        self.prefix_sharing_disabled_reason = "asked" if deterministic else None
        self.num_computed = self.num_shared = 0
        self.prompts = PromptCache()

    def of(self, sequences: list[Ids]) -> list[float]:
        return self.score([Encoded(ids, 0, truncated=False) for ids in sequences])


def alone(model: Any, sequences: list[Ids]) -> list[float]:
    """Hugging Face's own forward with its own head, one sequence at a time; each distinct one once."""
    with torch.inference_mode():
        once = {ids: model(input_ids=torch.tensor([ids])).logits.item() for ids in set(sequences)}
    return [once[ids] for ids in sequences]


def group(draw: random.Random, num: int | None = None) -> list[Ids]:
    """A prompt with completions that may be empty, equal, or begin alike, from one token up to the maximum."""
    prompt = tuple(draw.choices(range(3, VOCABULARY), k=draw.choice([0, 1, 5, 20, 60])))
    stem = tuple(draw.choices(range(3, VOCABULARY), k=draw.choice([0, 0, 3, 12])))
    few = draw.choice([4, 7, VOCABULARY])  # of few letters: many completions begin alike; 0 is the pad token
    room = MAX_LENGTH - len(prompt) - len(stem)
    made = []
    for _ in range(num or draw.choice([1, 2, 3, 8])):
        length = draw.choice([1, 2, draw.randint(1, room), min(room, int(draw.lognormvariate(2.3, 0.8)) + 1)])
        made.append((*prompt, *stem, *draw.choices(range(2, few), k=length))[:MAX_LENGTH])
    return made


@pytest.mark.parametrize("family", FIVE)
def test_a_hundred_groups_score_as_they_do_one_at_a_time(family: str) -> None:
    """Five families make five hundred groups, up to three of them mixed in a batch."""
    model, draw = classifier(family), random.Random(family)
    scorer = Scorer(model)
    scored = 0
    while scored < 100:
        groups = [group(draw) for _ in range(draw.choice([1, 1, 2, 3]))]
        scored += len(groups)
        batch = [ids for one in groups for ids in one]
        draw.shuffle(batch)
        assert scorer.of(batch) == pytest.approx(alone(model, batch), abs=BOUND)
    assert scorer.num_shared > 0


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in FIVE])
def test_other_families_share_exactly_too(family: str) -> None:
    model, draw = classifier(family), random.Random(family)
    for _ in range(10):
        batch = group(draw)
        assert Scorer(model).of(batch) == pytest.approx(alone(model, batch), abs=BOUND)


@pytest.mark.parametrize("num", [1, 2, 33, 64])
def test_groups_of_every_size_at_the_full_length(num: int) -> None:
    model, draw = classifier("qwen2"), random.Random(num)
    prompt = tuple(draw.choices(range(3, VOCABULARY), k=MAX_LENGTH - 20))
    batch = [(*prompt, *draw.choices(range(3, VOCABULARY), k=draw.randint(1, 20))) for _ in range(num)]
    batch[0] = (*prompt, *range(3, 23))
    scorer = Scorer(model)

    assert scorer.of(batch) == pytest.approx(alone(model, batch), abs=BOUND)
    assert scorer.num_shared >= len(prompt) * (num - 1)


@pytest.mark.parametrize("family", FIVE)
def test_a_score_moves_by_rounding_only_with_its_batch_mates_and_their_order(family: str) -> None:
    draw = random.Random(1)
    scorer, batch = Scorer(classifier(family)), [*group(random.Random(2), 8), *group(random.Random(3), 8)]
    together = scorer.of(batch)
    order = list(range(len(batch)))
    for _ in range(3):
        draw.shuffle(order)
        assert scorer.of([batch[at] for at in order]) == [together[at] for at in order]
        few = order[: draw.randint(1, len(order))]
        assert scorer.of([batch[at] for at in few]) == pytest.approx([together[at] for at in few], abs=BOUND)
    assert Scorer(classifier(family), deterministic=True).of(batch) == pytest.approx(together, abs=BOUND)


def test_single_requests_that_the_scheduler_puts_together_score_as_they_do_alone() -> None:
    """As a trainer sends them: one completion a request, those of several prompts mixed."""
    model, draw = classifier("qwen2"), random.Random(6)
    scorer, scheduler = Scorer(model), Scheduler[Encoded](300)
    prompts = [tuple(draw.choices(range(3, VOCABULARY), k=40)) for _ in range(3)]
    requests = []
    for at in range(30):
        ids = (*prompts[at % 3], *draw.choices(range(3, VOCABULARY), k=draw.randint(1, 30)))
        requests.append(SequenceGroup(str(at), [Encoded(ids, 40, truncated=False)], lane=1, deadline_ms=10**15))
        scheduler.add(requests[-1])
    batches = 0
    while len(scheduler):
        batch = scheduler.schedule()
        scheduler.finish(batch, scorer.score(batch.sequences))
        batches += 1

    sequences = [request.sequences[0].ids for request in requests]
    assert [request.scores[0] for request in requests] == pytest.approx(alone(model, sequences), abs=BOUND)
    assert scorer.num_shared >= 40 * (30 - 3 - batches)


def test_equal_sequences_score_equally_and_are_computed_once() -> None:
    scorer = Scorer(classifier("llama"))
    scores = scorer.of([(5, 6, 7), (5, 6, 8), (5, 6, 7)])
    assert scores[0] == scores[2] != scores[1]
    assert scorer.num_computed <= 6


def test_a_batch_larger_than_a_row_is_scored_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model, draw = classifier("qwen2"), random.Random(4)
    batch = [ids for _ in range(4) for ids in group(draw, 8)]
    whole = Scorer(model).of(batch)
    monkeypatch.setattr("service.scoring.reward_model.MAX_ROW_TOKENS", 100)
    assert Scorer(model).of(batch) == pytest.approx(whole, abs=BOUND)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_feed_forward_block_sees_pooled_tokens_only_and_is_itself_again_after(family: str) -> None:
    model, seen = classifier(family).base_model, []
    packing = pack([(*range(3, 30), 5), (*range(3, 30), 6, 7)])
    wide = model.layers[-1].mlp.fc2 if family == "phi" else model.layers[-1].mlp.down_proj
    wide.register_forward_hook(lambda module, given, out: seen.append(out.shape[1]))
    ids, positions = torch.tensor([packing.ids]), torch.tensor([packing.positions])
    with packed(model, packing, packing.pooled):
        model(input_ids=ids, position_ids=positions)
    model(input_ids=ids)
    assert seen == [2, len(packing.ids)]


@pytest.mark.parametrize("family", FAMILIES)
def test_these_families_are_shared(family: str) -> None:
    assert why_not(classifier(family).base_model, MAX_LENGTH) is None


def test_bfloat16_is_shared_and_near_float32() -> None:
    exact, rough, batch = classifier("qwen2"), classifier("qwen2").bfloat16(), group(random.Random(5), 8)
    assert why_not(rough.base_model, MAX_LENGTH) is None
    spread = max(map(abs, alone(exact, batch)))
    assert Scorer(rough).of(batch) == pytest.approx(alone(exact, batch), abs=0.1 * spread)


def test_a_rotary_scaling_that_looks_at_the_longest_of_a_batch_is_not_shared() -> None:
    half = {"max_position_embeddings": MAX_LENGTH // 2}
    dynamic = classifier("llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, **half)
    assert "depend on the longest sequence" in str(why_not(dynamic.base_model, MAX_LENGTH))
    assert why_not(dynamic.base_model, MAX_LENGTH // 2) is None


def test_soft_caps_are_not_shared() -> None:
    assert "softcap" in str(why_not(classifier("gemma2").base_model, MAX_LENGTH))


def test_a_recurrence_is_not_shared() -> None:
    from transformers import MambaConfig, MambaModel

    model = MambaModel(MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4)).eval()
    assert "linear_attention" in str(why_not(model, MAX_LENGTH))


def test_learned_biases_by_distance_are_not_shared() -> None:
    from transformers import BloomConfig, BloomModel

    model = BloomModel(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4)).eval()
    assert "does not support transformers' AttentionInterface" in str(why_not(model, MAX_LENGTH))


def test_tokens_that_meet_outside_of_attention_are_found_by_the_probe() -> None:
    """A convolution over the row, as some models have one in a layer that is named attention."""
    model = classifier("qwen2").base_model
    model.embed_tokens.register_forward_hook(lambda module, given, out: out + out.roll(1, dims=1) * 0.1)
    assert "tokens interact outside of attention" in str(why_not(model, MAX_LENGTH))


def test_a_window_that_attention_is_not_told_of_is_not_shared() -> None:
    model = classifier("llama").base_model
    model.config.sliding_window = WINDOW
    assert "a sliding window of 16" in str(why_not(model, MAX_LENGTH))
    assert why_not(model, WINDOW) is None


def test_a_layer_with_an_attention_of_its_own_is_not_shared() -> None:
    model = classifier("llama").base_model
    model.layers[1].self_attn.forward = lambda hidden_states, **others: (hidden_states, None)
    assert "1 of 2 layers" in str(why_not(model, MAX_LENGTH))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"is_causal": False}, "not causal"),
        ({"s_aux": torch.zeros(4)}, "s_aux"),
        ({"attention_mask": torch.zeros(1, 1, 3, 3)}, "mask of its own"),
    ],
)
def test_attention_that_is_more_than_causal_softmax_is_refused(change: dict[str, Any], words: str) -> None:
    from service.scoring.attention import attend

    model = classifier("llama").base_model
    states = torch.zeros(1, 4, 3, 8)
    arguments: dict[str, Any] = {"attention_mask": None, **change}
    with packed(model, pack([(1, 2, 3)]), [2]), pytest.raises(Unsharable, match=words):
        attend(model.layers[0].self_attn, states, states, states, **arguments)


def test_keys_of_other_tokens_than_the_rows_are_refused() -> None:
    from service.scoring.attention import attend

    model = classifier("llama").base_model
    query, keys = torch.zeros(1, 4, 3, 8), torch.zeros(1, 4, 5, 8)
    with packed(model, pack([(1, 2, 3)]), [2]), pytest.raises(Unsharable, match="other tokens"):
        attend(model.layers[0].self_attn, query, keys, keys, None)


def test_the_models_own_attention_is_back_after_a_row() -> None:
    model = classifier("llama").base_model
    before = model.config._attn_implementation
    with pytest.raises(RuntimeError, match="on the way"), packed(model, pack([(1,)]), [0]):
        raise RuntimeError("on the way")
    assert model.config._attn_implementation == before


def test_memory_does_not_grow_with_the_number_of_batches() -> None:
    def resident_kb() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4

    scorer, draw = Scorer(classifier("mistral")), random.Random(7)
    batches = [group(draw, 4) for _ in range(20)]
    for batch in batches * 5:
        scorer.of(batch)
    before = resident_kb()
    for batch in batches * 20:
        scorer.of(batch)
    assert resident_kb() - before < 4096


@pytest.mark.parametrize("family", ["qwen2", "gemma", "phi", "phi3"])
def test_a_row_longer_than_a_piece_scores_as_its_sequences_alone(family: str) -> None:
    """Feed-forward blocks run in pieces there, and are as they were afterwards."""
    model = classifier(family)
    draw = random.Random(3)
    sequences = [tuple(draw.choices(range(3, VOCABULARY), k=MAX_LENGTH)) for _ in range(PIECE // MAX_LENGTH + 3)]
    packing = pack(sequences)
    assert len(packing.ids) > PIECE
    before = [dict(vars(layer.mlp)) for layer in model.model.layers]
    with torch.no_grad(), packed(model.model, packing):
        hidden = model.model(
            input_ids=torch.tensor([packing.ids]), position_ids=torch.tensor([packing.positions]), use_cache=False
        ).last_hidden_state[0, packing.pooled]
    alone = [model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1] for ids in sequences]

    torch.testing.assert_close(hidden, torch.stack(alone), atol=1e-4, rtol=1e-4)
    assert [vars(layer.mlp).keys() for layer in model.model.layers] == [one.keys() for one in before]
