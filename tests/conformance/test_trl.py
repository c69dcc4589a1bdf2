"""TRL's GRPOTrainer against the running service: three steps, and the API killed in the middle one.

The policy is tiny and random, so what it would write is noise; the programs are put into its mouth by a rollout
function, and everything after that (the rewards, the advantages, the step) is TRL's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from plaudit.integrations.trl import reward_function
from support.checkpoints import write_tokenizer
from support.stack import Stack

TESTS = ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]
PROGRAMS = [
    "```python\ndef add(a, b):\n    return a + b\n```",
    "```python\ndef add(a, b):\n    return a - b\n```",
    "I would rather not.",
    "```python\ndef add(a, b):\n    return b + a\n```",
]
PASS_RATES = [1.0, 0.5, 0.0, 1.0]
SPEC = {
    "terms": [
        {"name": "tests", "type": "execute"},
        {"name": "rm", "type": "score", "weight": 0.1, "transform": "sigmoid"},
    ]
}


def policy(folder: Path) -> Path:
    """A random causal model with the tokenizer of the tests' reward models."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    write_tokenizer(folder, side="left")
    torch.manual_seed(3)
    shape = {
        "vocab_size": 400,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
    }
    Qwen2ForCausalLM(Qwen2Config(**shape, pad_token_id=0, bos_token_id=1, eos_token_id=2)).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore")  # TRL's and its libraries' own
def test_rewards_arrive_and_an_outage_in_the_middle_is_no_reward(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    judge = reward_function(stack.url, spec=SPEC, timeout_s=60.0)
    hasty = reward_function(stack.url, spec=SPEC, timeout_s=1.0)
    given: list[list[float | None]] = []

    def plaudit(**asked: Any) -> list[float | None]:
        step = len(given) + 1
        if step == 2:
            assert stack.api is not None
            stack.api.kill()
        if step == 3:
            stack.start_api(port=stack.port, wait=False)
        given.append((hasty if step == 2 else judge)(**asked))
        return given[-1]

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        encode = trainer.processing_class
        return {
            "prompt_ids": [encode(prompt)["input_ids"] for prompt in prompts],
            "completion_ids": [encode(text, add_special_tokens=False)["input_ids"] for text in PROGRAMS],
            "logprobs": None,
        }

    weights: list[torch.Tensor] = []

    class Watch(trl.trainer.grpo_trainer.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            weights.append(torch.cat([one.detach().flatten().clone() for one in model.parameters()]))

    trainer = trl.GRPOTrainer(
        model=str(policy(tmp_path / "policy")),
        reward_funcs=plaudit,
        rollout_func=rollout,
        callbacks=[Watch()],
        train_dataset=datasets.Dataset.from_list([{"prompt": "Write add(a, b).", "tests": TESTS}] * 4),
        args=trl.GRPOConfig(
            output_dir=str(tmp_path / "run"),
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
            max_steps=3,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=64,
            logging_steps=1,
            beta=0.0,
            optim="sgd",
            learning_rate=0.1,
            lr_scheduler_type="constant",
            gradient_checkpointing=False,
            disable_tqdm=True,
        ),
    )
    try:
        trainer.train()
    finally:
        judge.args[0].close()
        hasty.args[0].close()
        if not stack.of_kind("api"):
            stack.start_api(port=stack.port, wait=False)
    first, second, third = given
    for row, rate in zip(first, PASS_RATES, strict=True):
        assert row is not None
        assert rate < row < rate + 0.1  # the tests' share, and the sigmoid's
    assert second == [None] * 4
    assert third == pytest.approx(first)
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert logged[0]["reward"] == pytest.approx(sum(filter(None, first)) / 4, abs=1e-5)
    assert logged[1]["reward"] is None  # and not 0
    assert [entry["plaudit/reward_ok"] for entry in logged] == [1.0, 0.0, 1.0]
    assert torch.equal(weights[0], weights[1])  # a step without rewards moves nothing
    assert not torch.equal(weights[1], weights[2])
