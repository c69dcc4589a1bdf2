"""`examples/`: each runs as it stands, against a service, and imports nothing of this repository but `plaudit`."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plaudit import Client
from plaudit.schemas import ExecuteItem
from support.openai_server import OpenAIServer
from support.pages import ROOT
from support.stack import Stack
from training.pipeline.config import read_recipe
from training.pipeline.needs import check_needs

EXAMPLES = ROOT / "examples"
OWN = {"service", "sandbox", "training", "support"}
SCRIPTS = sorted(path for path in EXAMPLES.glob("*.py") if path.name != "first_light.py")  # that one starts the service


def environ(stack: Stack) -> dict[str, str]:
    paths = f"{ROOT}{os.pathsep}{ROOT / 'client'}"
    return {**stack.environ, "PYTHONPATH": paths, "PLAUDIT_URL": stack.url, "HF_HUB_OFFLINE": "1"}


def run(stack: Stack, name: str, *words: str, folder: Path = ROOT) -> str:
    argv = [sys.executable, "-W", "ignore", str(EXAMPLES / name), *words, "--plaudit", stack.url]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=170, cwd=folder, env=environ(stack))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_an_example_imports_nothing_of_the_repository_but_the_client(script: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert "plaudit" in imported
    assert not imported & OWN


def test_every_example_is_in_the_list() -> None:
    text = (EXAMPLES / "README.md").read_text("utf-8")
    listed = set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
    data = {"README.md", "problems.jsonl", "meant.json", "__pycache__"}
    there = {path.name + "/" * path.is_dir() for path in EXAMPLES.iterdir() if path.name not in data}
    assert listed == there


def test_the_best_of_n_is_picked_from_what_a_sampler_writes(stack: Stack, tmp_path: Path) -> None:
    written = iter([f"```python\ndef add(a, b):\n    return a {sign} b\n```" for sign in "-+"])

    def answer(body: dict[str, Any]) -> list[str]:
        return [next(written)]  # one a request, whatever is asked for

    with OpenAIServer(answer=answer) as sampler:
        words = ["--sampler", f"{sampler.url}", "--model", "m", "--prompt", "Write add(a, b).", "-n", "2"]
        text = run(stack, "best_of_n.py", *words, "--test", "assert add(1, 2) == 3", folder=tmp_path)
    assert text.startswith("number 1 of 2, decided by tests")
    assert "return a + b" in text


@pytest.mark.extended
@pytest.mark.timeout(300)
def test_the_reward_of_a_tiny_policy_goes_up(stack: Stack, tmp_path: Path) -> None:
    text = run(stack, "grpo_laptop.py", "--steps", "20", folder=tmp_path)
    first, last = map(float, re.findall(r"of the (?:first|last) five (?:steps )?([\d.]+)", text))
    assert first < 0.5
    assert last > first + 0.3


def test_the_audit_reads_the_file_that_is_shipped(stack: Stack, tmp_path: Path) -> None:
    row = json.loads((EXAMPLES / "problems.jsonl").read_text("utf-8").splitlines()[1])
    file = tmp_path / "one.jsonl"
    file.write_text(json.dumps(row) + "\n")
    text = run(stack, "audit_dataset.py", str(file), "--budget-cpu-s", "2", folder=tmp_path)
    assert re.search(rf"^{row['id']} +good +{len(row['tests']['asserts'])} +0 +0 ", text, re.MULTILINE), text


def test_the_notebook_runs(stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PLAUDIT_URL", stack.url)
    notebook = json.loads((EXAMPLES / "plaudit.ipynb").read_text("utf-8"))
    namespace: dict[str, Any] = {"__name__": "notebook"}
    for cell in notebook["cells"]:
        assert cell.get("outputs", []) == [], "save it without outputs"
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), namespace)
    assert "[1.0, 0.5, 0.0, 0.0]" in capsys.readouterr().out


def test_the_reward_file_has_what_three_trainers_call(stack: Stack) -> None:
    code = (
        "import asyncio, rewards\n"
        "tests, text = ['assert add(1, 2) == 3'], '```python\\ndef add(a, b):\\n    return a + b\\n```'\n"
        "row = asyncio.run(rewards.compute_score(data_source='x', solution_str=text, ground_truth=tests))\n"
        "assert row['pass_rate'] == 1.0, row\n"
        "assert rewards.reward_func([text], [''], [tests])['rewards'][0] >= 1.0\n"
        "assert callable(rewards.custom_rm)\n"
    )
    argv = [sys.executable, "-W", "ignore::ResourceWarning", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=EXAMPLES, env=environ(stack))
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_launch_line_of_acecoderm_has_flags_that_exist() -> None:
    from plaudit import cli
    from service.cli import add_commands

    text = (EXAMPLES / "serve_acecoderm.sh").read_text("utf-8").replace("\\\n", " ")
    (line,) = (line for line in text.splitlines() if line.startswith("exec "))
    words = [word for word in shlex.split(line.removeprefix("exec "))[1:] if word != "$@"]
    flags = cli.parser({}, add_commands).parse_args(words)
    assert len(flags.setting_model) == 2
    assert flags.setting_dtype == "bfloat16"


def problems() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLES / "ten_problems" / "problems.jsonl").read_text("utf-8").splitlines()]


def test_ten_problems_have_right_and_wrong_programs_by_their_tests(stack: Stack) -> None:
    rows = problems()
    assert len(rows) == 10
    items = [
        ExecuteItem.model_validate(
            {
                "language": "python",
                "programs": [one["completion"] for one in row["inferences"]],
                "extract": "last_fence",
                "tests": {"kind": "assert", "asserts": row["test_cases"]},
            }
        )
        for row in rows
    ]
    with Client(stack.url, timeout_s=120) as client:
        results = client.execute(items).results
    for row, result in zip(rows, results, strict=True):
        passed = [program.verdict == "passed" for program in result.programs]
        assert passed == [one["pass_rate"] == 1.0 for one in row["inferences"]], row["id"]


def test_the_recipe_of_ten_problems_lacks_nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    recipe = read_recipe(EXAMPLES / "ten_problems" / "recipe.toml", environ={})
    check_needs(recipe, recipe.stages, tmp_path)
    assert Path(recipe.hub.path).is_file()
    assert Path(recipe.fit.base).is_dir()


@pytest.mark.extended
@pytest.mark.timeout(900)
def test_ten_problems_become_a_checkpoint(tmp_path: Path) -> None:
    recipe = "examples/ten_problems/recipe.toml"
    argv = [sys.executable, "-m", "training.pipeline.cli", "all", recipe, "--run", str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=800, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    stages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [stage["stage"] for stage in stages] == ["collect", "verify", "pair", "fit"]
    assert stages[2]["pairs"] > 40
    assert (tmp_path / "checkpoint" / "model.safetensors").is_file()
