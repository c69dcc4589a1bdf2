"""Run by the tests in a process whose path has verl's own packages: verl's reward managers over verl's own batches.

    python verl_managers.py PARQUET TOKENIZER COMPLETIONS.json PLAN.json OVERRIDE...

The overrides are those of a launch file. verl composes its configuration from them, reads the Parquet by its own data
set class, makes a `DataProto` of it and of the completions, and loads the manager with the reward function that the
configuration names. The plan is a list of [kind, manager, function]: kind `loop` for the managers of the reward loop,
`batch` for those of `verl.workers`. Printed is a JSON list: each completion's reward and verl's columns beside it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import hydra
import torch
import verl
from transformers import AutoTokenizer
from verl import DataProto
from verl.trainer.ppo.reward import get_custom_reward_fn, load_reward_manager
from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn


def batch_of(dataset: Any, tokenizer: Any, completions: list[str]) -> Any:
    """A rollout's batch: every completion under the first prompt, padded as verl pads."""
    rows = collate_fn([dataset[0] for _ in completions])
    prompt = tokenizer.apply_chat_template(list(rows["raw_prompt"][0]), add_generation_prompt=True, tokenize=False)
    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tails = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in completions]
    width, pad = max(map(len, tails)), tokenizer.pad_token_id or 0
    responses = torch.tensor([tail + [pad] * (width - len(tail)) for tail in tails])
    prompts = torch.tensor([head] * len(tails))
    mask = torch.tensor([[1] * len(head) + [1] * len(tail) + [0] * (width - len(tail)) for tail in tails])
    names = ("data_source", "reward_model", "extra_info")
    return DataProto.from_dict(
        tensors={"prompts": prompts, "responses": responses, "attention_mask": mask},
        non_tensors={name: rows[name] for name in names},
    )


async def in_the_loop(config: Any, tokenizer: Any, batch: Any) -> dict[str, Any]:
    """The managers of the reward loop: one call a sample, all at once."""
    manager = load_reward_manager(config, tokenizer)
    results = await asyncio.gather(*(manager.run_single(batch[at : at + 1]) for at in range(len(batch))))
    scores = [result["reward_score"] for result in results]
    last = manager.assemble_rm_scores(batch, scores)
    return {
        "manager": type(manager).__name__,
        "scores": last.sum(dim=1).tolist(),
        "at": last.argmax(dim=1).tolist(),
        "extra": [result["reward_extra_info"] for result in results],
    }


def by_the_batch(name: str, config: Any, tokenizer: Any, batch: Any) -> dict[str, Any]:
    """The managers that take a whole batch."""
    from verl.workers.reward_manager import get_reward_manager_cls

    manager = get_reward_manager_cls(name)(
        tokenizer=tokenizer, num_examine=0, compute_score=get_custom_reward_fn(config)
    )
    answer = manager(batch, return_dict=True)
    return {
        "manager": type(manager).__name__,
        "scores": answer["reward_tensor"].sum(dim=1).tolist(),
        "at": answer["reward_tensor"].argmax(dim=1).tolist(),
        "extra": {name: list(map(float, column)) for name, column in answer["reward_extra_info"].items()},
    }


def main() -> None:
    """Print one line of JSON."""
    parquet, folder, completions, plan, *overrides = sys.argv[1:]
    configuration = str(Path(verl.__file__).parent / "trainer" / "config")
    tokenizer, found = AutoTokenizer.from_pretrained(folder), []
    for kind, manager, function in json.loads(Path(plan).read_text(encoding="utf-8")):
        named = [f"reward.custom_reward_function.name={function}"]
        named += [f"reward.reward_manager.name={manager}"] if kind == "loop" else []
        with hydra.initialize_config_dir(config_dir=configuration, version_base=None):
            config = hydra.compose(config_name="ppo_trainer", overrides=[*overrides, *named])
        dataset = RLHFDataset(data_files=parquet, tokenizer=tokenizer, config=config.data)
        batch = batch_of(dataset, tokenizer, json.loads(Path(completions).read_text(encoding="utf-8")))
        if kind == "loop":
            found.append(asyncio.run(in_the_loop(config, tokenizer, batch)))
        else:
            found.append(by_the_batch(manager, config, tokenizer, batch))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
