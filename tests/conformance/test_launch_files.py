"""The launch files for Ray clusters fit the configuration of the trainers that they launch, as their wheels have it."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.clients import unpacked
from support.launch_files import RECIPES, launched


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wheels")


@pytest.mark.parametrize("algorithm", ["reinforce", "ppo"])
def test_verl_knows_every_key_and_takes_every_value(algorithm: str, tmp_path: Path, wheels: Path) -> None:
    package = unpacked("verl", wheels) / "verl"
    config = yaml.safe_load((package / "trainer" / "config" / "_generated_ppo_trainer.yaml").read_text())
    module, name, *overrides = launched("verl_ray.sh", tmp_path, ALGORITHM=algorithm)
    assert (module, name) == ("-m", "verl.trainer.main_ppo")
    assert ("critic.model.path=a/model" in overrides) == (algorithm == "ppo")
    assert (package / "trainer" / "main_ppo.py").is_file()
    for override in overrides:
        key, _, text = override.partition("=")
        known: Any = config
        for part in key.split("."):
            assert part in known, f"{key}: verl has no {part}"
            known = known[part]
        given = yaml.safe_load(text)
        if isinstance(known, float) or (isinstance(known, str) and known.replace("e-", "").isdigit()):
            float(given)
        elif known is not None and known != "???":
            assert type(given) is type(known), key
    estimators = (package / "trainer" / "ppo" / "core_algos.py").read_text()
    estimator = next(text for key, _, text in (item.partition("=") for item in overrides) if key.endswith("estimator"))
    assert f'= "{estimator}"' in estimators


def test_openrlhf_takes_every_flag(tmp_path: Path, wheels: Path) -> None:
    (source,) = unpacked("openrlhf", wheels).rglob("train_ppo_ray.py")
    module, name, *flags = launched("openrlhf_ray.sh", tmp_path)
    assert "--reward.normalize_enable" not in flags
    module, name, *flags = launched("openrlhf_ray.sh", tmp_path, REWARD="rm")
    assert (module, name) == ("-m", "openrlhf.cli.train_ppo_ray")
    (block,) = (
        node
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
    )
    end = next(at for at, node in enumerate(block.body) if "parse_args" in ast.unparse(node))
    namespace: dict[str, Any] = {"argparse": argparse}
    own = [node for node in ast.parse(source.read_text()).body if isinstance(node, ast.FunctionDef | ast.ImportFrom)]
    helpers = [node for node in own if not ast.unparse(node).startswith(("from openrlhf", "from ray"))]
    exec(compile(ast.Module([*helpers, *block.body[:end]], []), str(source), "exec"), namespace)
    args = namespace["parser"].parse_args(flags)
    assert vars(args)["rollout.n_samples_per_prompt"] == 8
    assert vars(args)["actor.adam.lr"] == 5e-7
    assert vars(args)["reward.normalize_enable"] is True
    module, name, *flags = launched("openrlhf_ray.sh", tmp_path, REWARD="rm", ALGORITHM="ppo")
    args = namespace["parser"].parse_args(flags)
    assert vars(args)["algo.advantage.estimator"] == "gae"
    assert vars(args)["critic.model_name_or_path"] == vars(args)["actor.model_name_or_path"]


def test_openrlhf_normalises_only_a_reward_model_that_it_loads(wheels: Path) -> None:
    """What the launch file's header says of `--reward.normalize_enable`."""
    (package,) = unpacked("openrlhf", wheels).rglob("purelib/openrlhf")
    readers = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "args.reward.normalize_enable" in path.read_text()
    }
    assert readers == {"trainer/ray/launcher.py", "trainer/ray/ppo_critic.py", "cli/serve_rm.py"}


@pytest.mark.parametrize("script", ["verl_ray.sh", "openrlhf_ray.sh"])
def test_both_name_the_function_that_the_reward_file_has(script: str, tmp_path: Path) -> None:
    import runpy

    assert "training/rl/recipes/reward_func.py" in "\n".join(launched(script, tmp_path))
    found = runpy.run_path(str(RECIPES / "reward_func.py"))
    assert callable(found["compute_score" if script == "verl_ray.sh" else "reward_func"])
