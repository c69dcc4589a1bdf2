"""Run by the tests in a process whose path has OpenRLHF's own package: one rollout, from data to `Experience`.

    python openrlhf_rollout.py JSONL TOKENIZER COMPLETIONS.json REMOTE_URL...

OpenRLHF's own data set reads and renders the prompts, its own executor asks for the reward, its own code makes an
`Experience` of the answer and computes returns and advantages of REINFORCE from it. The language model is a list of
completions; vLLM, Ray's actors and DeepSpeed, which only a cluster runs, are names without contents. A line of JSON
for each remote URL.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer


def named(name: str, **contents: Any) -> None:
    """Put a module without contents where OpenRLHF imports one."""
    module = types.ModuleType(name)
    module.__dict__.update(contents)
    module.__path__ = []
    sys.modules[name] = module


def package(name: str) -> None:
    """A package of OpenRLHF without its `__init__`, which imports what only a GPU runs."""
    spec = importlib.util.find_spec("openrlhf")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (root,) = list(spec.submodule_search_locations)
    module = types.ModuleType(name)
    module.__path__ = [str(Path(root, *name.split(".")[1:]))]
    sys.modules[name] = module


class Recorded:
    """In vLLM's place: the next completion of a list."""

    def __init__(self, tokenizer: Any, completions: list[str]) -> None:
        self._ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in completions]

    async def generate(self, prompt_ids: list[int], sampling: Any, multi_modal_data: Any = None) -> Any:
        output = types.SimpleNamespace(token_ids=self._ids.pop(0), finish_reason="stop", logprobs=None)
        return types.SimpleNamespace(outputs=[output])


def main() -> None:
    """Print a line of JSON for each remote URL."""
    data, folder, completions, *remote_urls = sys.argv[1:]
    for name in ("openrlhf.datasets", "openrlhf.utils", "openrlhf.trainer", "openrlhf.trainer.ray", "openrlhf.models"):
        package(name)
    named("vllm", SamplingParams=types.SimpleNamespace)
    named("deepspeed")
    named("openrlhf.trainer.ray.vllm_engine", batch_vllm_engine_call=None)
    named("openrlhf.trainer.ray.launcher", RayActorGroup=None)
    if importlib.util.find_spec("ray") is None:
        named("ray")
    from datasets import load_dataset
    from openrlhf.datasets.prompts_dataset import PromptDataset

    tokenizer = AutoTokenizer.from_pretrained(folder)
    args = settings(len(json.loads(Path(completions).read_text(encoding="utf-8"))))
    strategy = types.SimpleNamespace(args=args, is_rank_0=lambda: False)
    rows = load_dataset("json", data_files=data, split="train")
    _, prompt, label, _ = PromptDataset(rows, tokenizer, strategy)[0]
    for url in remote_urls:
        texts = json.loads(Path(completions).read_text(encoding="utf-8"))
        responses = asyncio.run(rollouts(url, prompt, label, tokenizer, texts))
        print(json.dumps(learnt_from(responses, strategy, tokenizer.pad_token_id or 0) | {"prompt": prompt}))


def settings(num_samples: int) -> Any:
    """What of OpenRLHF's arguments these parts read, as `openrlhf_ray.sh` sets it."""
    space = types.SimpleNamespace
    return space(
        data=space(input_key="prompt", label_key="tests", apply_chat_template=True, image_key="images"),
        rollout=space(n_samples_per_prompt=num_samples),
        algo=space(advantage=space(estimator="reinforce", gamma=1.0, lambd=1.0, no_std_norm=False)),
        reward=space(clip_range=(-10, 10), overlong_buffer_len=None, stop_properly_penalty_coef=None),
    )


async def rollouts(url: str, prompt: str, label: Any, tokenizer: Any, texts: list[str]) -> list[dict[str, Any]]:
    """The executor's answer for each completion."""
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    executor, engine = SingleTurnAgentExecutor(url.split(",")), Recorded(tokenizer, texts)
    sampling = types.SimpleNamespace(max_tokens=256, logprobs=None)
    return [await executor.execute(prompt, label, sampling, 1024, tokenizer, engine) for _ in texts]


def learnt_from(responses: list[dict[str, Any]], strategy: Any, pad: int) -> dict[str, Any]:
    """What the trainer makes of these answers."""
    from openrlhf.trainer.ppo_utils.experience import Experience
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
    from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

    generator = SamplesGenerator.__new__(SamplesGenerator)  # their constructors start Ray actors
    maker = RemoteExperienceMaker.__new__(RemoteExperienceMaker)
    maker.strategy, maker.advantage_estimator = strategy, "reinforce"
    maker.kl_ctl = types.SimpleNamespace(value=0.01)
    experiences = [generator._process_response_into_experience(response, max_len=1024) for response in responses]
    joined = Experience.concat_experiences(experiences, pad)
    joined.index, joined.kl = list(range(len(responses))), torch.zeros_like(joined.action_mask, dtype=torch.float32)
    (joined,) = maker.compute_advantages_and_returns([joined])
    first = [int(row.argmax()) for row in joined.action_mask]  # a completion's first token
    return {
        "info": {name: value.flatten().tolist() for name, value in joined.info.items()},
        "advantages": [float(row[at]) for row, at in zip(joined.advantages, first, strict=True)],
    }


if __name__ == "__main__":
    main()
