"""GRPO on a laptop: a policy of 15,000 parameters learns to write three functions, paid by tests that plaudit runs.

    python examples/grpo_laptop.py            # with `make up` in another terminal; under a minute on one core

The policy knows eight function bodies and starts by choosing at random. The prompt says which function is wanted; the
reward is the pass rate of its tests. Watch the mean reward rise from about 0.2 to nearly 1: the loop is the one that
trains a language model, `examples/rewards.py` has the same reward for verl and OpenRLHF.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from typing import Any

from plaudit.integrations.trl import reward_function

BODIES = ("a+b", "a-b", "a*b", "b-a", "max(a,b)", "min(a,b)", "abs(a)", "0")
PROBLEMS = {
    "sum": ["assert f(1, 2) == 3", "assert f(-1, 1) == 0", "assert f(5, 5) == 10", "assert f(-2, -7) == -9"],
    "difference": ["assert f(3, 2) == 1", "assert f(0, 4) == -4", "assert f(7, 7) == 0", "assert f(-1, -3) == 2"],
    "larger": ["assert f(3, 2) == 3", "assert f(0, 4) == 4", "assert f(-5, -2) == -2", "assert f(1, 1) == 1"],
}
SPECIAL = ("<pad>", "<s>", "</s>")


def policy() -> tuple[Any, Any]:
    """A model and its tokenizer, made from nothing: a word is a token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    words = [*SPECIAL, *PROBLEMS, *BODIES]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left"
    )
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return Qwen2ForCausalLM(config), fast


def train(url: str, steps: int) -> list[float]:
    """The mean reward of every step."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(1)
    tests_reward = reward_function(url, reward="tests", extract="none")

    def reward(completions: list[str], **columns: Any) -> list[float | None]:
        programs = [f"def f(a, b):\n    return {completion.strip() or 'None'}\n" for completion in completions]
        return tests_reward(completions=programs, **columns)

    class Curve(TrainerCallback):  # type: ignore[misc]
        means: list[float] = []  # noqa: RUF012 - of this run

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **others: Any) -> None:
            if "reward" in logs:
                self.means.append(float(logs["reward"]))
                print(f"step {state.global_step:>3}  reward {self.means[-1]:.2f}  {'#' * round(40 * self.means[-1])}")

    model, tokenizer = policy()
    rows = [{"prompt": name, "tests": tests} for name, tests in PROBLEMS.items()] * 4
    curve = Curve()
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=48,
            num_generations=16,
            max_completion_length=1,
            learning_rate=2e-2,
            lr_scheduler_type="constant",
            beta=0.0,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            seed=1,
            disable_tqdm=True,
            log_level="error",
        )
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=[reward],
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[curve],
        )
        trainer.remove_callback(PrinterCallback)  # our curve is enough
        trainer.train()
    return curve.means


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--plaudit", default="http://127.0.0.1:8000", metavar="URL")
    options.add_argument("--steps", type=int, default=25)
    arguments = options.parse_args()
    means = train(arguments.plaudit, arguments.steps)
    first, last = sum(means[:5]) / 5, sum(means[-5:]) / 5
    print(f"mean reward of the first five steps {first:.2f}, of the last five {last:.2f}")
    return 0 if last > first + 0.3 else 1


if __name__ == "__main__":
    sys.exit(main())
