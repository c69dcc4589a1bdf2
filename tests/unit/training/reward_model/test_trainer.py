"""The shared prompt, the text and the schedule: what is learnt is what is served."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForSequenceClassification

from plaudit.errors import UsageError
from service.scoring.reward_model import Encoder, RewardModel
from support.checkpoints import checkpoint
from training.data.programs import program_of
from training.pipeline.config import FitConfig, Recipe, TokenizeConfig
from training.pipeline.records import Problem
from training.reward_model.finalize import write_golden
from training.reward_model.loss import bradley_terry
from training.reward_model.optimization import cosine_schedule
from training.reward_model.packed_forward import group_scores
from training.reward_model.pair_groups import Encodings, epoch_groups
from training.reward_model.pretrain import batches
from training.reward_model.template import COMPLETION, END, FORMS, PROMPT, presented, spec
from training.reward_model.tokenizer import train_tokenizer

PROBLEM = Problem(
    task_id="T/1",
    base_id="T/1",
    prompt='def double(x):\n    """Twice x."""\n',
    entry_point="double",
    canonical=None,
    test_setup="",
    tests=("assert double(2) == 4",),
    source="own",
    license="Apache-2.0",
)
BODIES = ["    return 2 * x\n", "    return x + x\n", "    return x ** 2\n", "    y = x\n    return y\n"]
TINY = dataclasses.replace(Recipe(), tokenize=TokenizeConfig(vocab_size=300))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = train_tokenizer([Path(__file__).read_text(encoding="utf-8")], TINY)
    return Encoder(tokenizer, spec(TINY))


def tiny(kv_heads: int) -> Any:
    torch.manual_seed(3)
    model = Qwen2ForSequenceClassification(
        Qwen2Config(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            num_labels=1,
            pad_token_id=0,
        )
    )
    torch.nn.init.normal_(model.score.weight)
    return model


def several_groups(encoder: Encoder) -> list[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """Groups of four, one and two programs under prompts of three lengths."""
    groups = []
    for lead, bodies in (("", BODIES), ("import math\n\n", BODIES[3:]), ("# twice\n", BODIES[1:3])):
        encoded = [encoder.encode(lead + PROBLEM.prompt, body) for body in bodies]
        cut = encoded[0].prompt_tokens
        groups.append((encoded[0].ids[:cut], [e.ids[cut:] for e in encoded]))
    return groups


def one_at_a_time(model: Any, groups: list[tuple[tuple[int, ...], list[tuple[int, ...]]]]) -> torch.Tensor:
    return torch.cat(
        [model(input_ids=torch.tensor([prompt + own])).logits[0] for prompt, owns in groups for own in owns]
    )


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_packing_groups_under_shared_prompts_changes_no_score(encoder: Encoder, kv_heads: int) -> None:
    model, groups = tiny(kv_heads).eval(), several_groups(encoder)
    with torch.no_grad():
        torch.testing.assert_close(group_scores(model, groups), one_at_a_time(model, groups), atol=1e-5, rtol=0)


def test_packing_groups_under_shared_prompts_changes_no_gradient(encoder: Encoder) -> None:
    model, groups, pairs = tiny(2), several_groups(encoder), [(0, 2), (1, 3), (5, 6)]
    torch.autograd.backward(bradley_terry(one_at_a_time(model, groups), pairs))
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    torch.autograd.backward(bradley_terry(group_scores(model, groups), pairs))
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=1e-4)


def test_training_encodes_and_pools_exactly_what_serving_does(encoder: Encoder) -> None:
    programs = [program_of(PROBLEM, PROBLEM.prompt + body, "sample", "own", "Apache-2.0") for body in BODIES]
    made = Encodings(encoder, {PROBLEM.task_id: PROBLEM}, {program.program_id: program for program in programs})
    for program in programs:
        head, own = made[program.program_id, "body"]
        served = encoder.encode(PROBLEM.prompt, program.completion)
        assert head + own == served.ids
        assert len(head) == served.prompt_tokens
        assert own[-1] == encoder.tokenizer.convert_tokens_to_ids(END)


def test_whatever_loads_the_tokenizer_beside_its_model_gives_the_ids_that_were_learnt(
    encoder: Encoder, tmp_path: Path
) -> None:
    encoder.tokenizer.save_pretrained(tmp_path)
    tiny(2).config.save_pretrained(tmp_path)
    text = PROBLEM.prompt + BODIES[3] + "\n\n\tx = 1234567  # naïve e\u0301\n"
    ids = encoder.tokenizer.encode(text, add_special_tokens=False)
    for load in (AutoTokenizer, PreTrainedTokenizerFast):
        assert load.from_pretrained(tmp_path).encode(text, add_special_tokens=False) == ids


def test_the_chat_template_writes_the_same_text(encoder: Encoder) -> None:
    text = encoder.tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], tokenize=False
    )
    assert text == encoder.full_text("a", "b") == f"{PROMPT}a{COMPLETION}b{END}"
    conversation: Any = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    chat = encoder.tokenizer.apply_chat_template([*conversation, {"role": "assistant", "content": "b"}], tokenize=False)
    assert chat == encoder.full_text(conversation, "b")


def test_a_whole_function_has_its_signature_once_and_no_docstring() -> None:
    program = program_of(PROBLEM, PROBLEM.prompt + BODIES[0], "sample", "own", "Apache-2.0")
    assert presented(program, PROBLEM.prompt, "double", "program")[1] == "def double(x):\n    return 2 * x\n"
    fenced = presented(program, PROBLEM.prompt, "double", "fenced")[1]
    assert fenced == "```python\ndef double(x):\n    return 2 * x\n```\n"


def test_groups_hold_both_kinds_and_every_epoch_deals_anew() -> None:
    chosen, rejected = [f"g{i}" for i in range(5)], [f"b{i}" for i in range(30)]
    better = {"T/1": {(a, b) for a in chosen for b in rejected}}
    encoded: Any = {(name, form): ((1,), (2,)) for name in chosen + rejected for form in ("body", *FORMS)}
    recipe = dataclasses.replace(TINY, fit=FitConfig(group_size=12, max_groups=3))

    groups = epoch_groups(better, encoded, recipe, epoch=0)

    assert len(groups) == 3
    assert all(len(g.programs) == len(set(g.programs)) == 12 for g in groups)
    assert all({name[0] for name in g.programs} == {"g", "b"} for g in groups)
    assert groups == epoch_groups(better, encoded, recipe, epoch=0)
    assert groups != epoch_groups(better, encoded, recipe, epoch=1)


def test_the_learning_rate_warms_up_and_ends_low() -> None:
    values = [cosine_schedule(step / 100, 0.1) for step in range(100)]
    assert values[0] < 0.02
    assert max(values) == pytest.approx(1.0, abs=0.02)
    assert values[-1] < 0.06


def test_batches_use_every_row_in_a_pass_and_stop_at_the_budget() -> None:
    rows = [{"kind": "corpus", "ids": [1] * (5 + at % 90)} for at in range(300)]
    one_pass = sum(len(r["ids"]) for r in rows)
    settings = dataclasses.replace(TINY.pretrain, max_tokens=one_pass, batch_tokens=512)
    plan = batches(rows, dataclasses.replace(TINY, pretrain=settings))
    assert sorted(at for batch in plan for at in batch) == list(range(300))
    assert all(max(len(rows[at]["ids"]) for at in batch) * len(batch) <= 512 for batch in plan)


def test_a_limit_that_lets_no_golden_example_in_is_named(tmp_path: Path) -> None:
    model = RewardModel.load(checkpoint(tmp_path, max_length=4))
    with pytest.raises(UsageError, match=r"fit\.max_length is 4 tokens"):
        write_golden(model, tmp_path)
    assert not (tmp_path / "golden.jsonl").exists()
