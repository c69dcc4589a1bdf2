"""`docs/trainers/`: what stands there can be pasted.

python trainer   all of a page together are one script, run by a fresh interpreter against the service
bash trainer     run; what it prints must have everything in it that the `text answer` behind it says
yaml NAME, sh    parsed; keys, flags and URLs must be those that the trainer (and the service) has
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.api.compat.registry import DIALECTS
from support import clients
from support.pages import ROOT, Block, blocks
from support.stack import Stack

WRITTEN = "http://127.0.0.1:8000"
PAGES = sorted(page for page in (ROOT / "docs" / "trainers").glob("*.md") if page.name != "index.md")
BLOCKS = {page: list(blocks(page)) for page in PAGES}
ANY = "…"
# Keys and flags from each trainer's source, at the versions in `tests/support/clients.py` or as of 2026-11
KEYS = {
    "open-r1": {"e2b_router_url", "morph_router_url"},
    "roll": {"rewards", "code_sandbox", "use_local", "code_url"},
    "llama-factory": {"stage", "reward_model_type", "reward_model"},
    "skyrl": {"environment", "env_class"},
    "nemo-gym": {"resources_url", "request_timeout"},
}
FLAGS = {
    "--reward.remote_url",
    "--rm-type",
    "--rm-url",
    "--code_api_url",
    "reward.sandbox_fusion.url",
    "reward.sandbox_fusion.max_concurrent",
    "reward.sandbox_fusion.memory_limit_mb",
    "reward.custom_reward_function.path",
    "reward.custom_reward_function.name",
    "SANDBOX_FUSION_ENDPOINT",
    "PISTON_ENDPOINTS",
}


def ids(values: list[Any]) -> list[Any]:
    return [pytest.param(*value, id=value[0].name if isinstance(value[0], Block | Path) else None) for value in values]


# --- what runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name)
        for page in PAGES
        if any(block.info == "python trainer" for block in BLOCKS[page])
    ],
)
def test_the_python_of_a_page_runs(page: Path, stack: Stack) -> None:
    code = "\n".join(block.code for block in BLOCKS[page] if block.info == "python trainer")
    argv = [sys.executable, "-W", "ignore::ResourceWarning", "-c", code.replace(WRITTEN, stack.url)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=folder,
            env={**stack.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"},
        )
    assert done.returncode == 0, done.stderr[-2000:]


SHELL = [
    (block, following)
    for page in PAGES
    for block, following in zip(BLOCKS[page], BLOCKS[page][1:], strict=False)
    if block.info == "bash trainer"
]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(("block", "answer"), ids(SHELL))
def test_the_shell_of_a_page_answers_what_stands_there(block: Block, answer: Block, stack: Stack) -> None:
    assert answer.info == "text answer", "what does it answer?"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code.replace(WRITTEN, stack.url)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert lacking(json.loads(answer.code), json.loads(done.stdout)) == []


def lacking(want: Any, have: Any, path: str = "") -> list[str]:
    """Where an answer has not what the page says of it; the page may say less than all."""
    if want == ANY:
        return []
    if isinstance(want, dict) and isinstance(have, dict):
        missing = [f"{path}.{name}" for name in want if name not in have]
        both = [name for name in want if name in have]
        return missing + [one for name in both for one in lacking(want[name], have[name], f"{path}.{name}")]
    if isinstance(want, list) and isinstance(have, list) and len(want) == len(have):
        return [one for at, (a, b) in enumerate(zip(want, have, strict=True)) for one in lacking(a, b, f"{path}.{at}")]
    return [] if want == have else [f"{path}: {have!r}"]


# --- what is pasted --------------------------------------------------------------------------------------------------

YAML = [(block,) for page in PAGES for block in BLOCKS[page] if block.info.startswith("yaml")]


@pytest.mark.parametrize("block", [pytest.param(*one, id=one[0].name) for one in YAML])
def test_yaml_has_keys_that_the_trainer_has(block: Block) -> None:
    def keys(part: Any) -> set[str]:
        return set(part).union(*map(keys, part.values())) if isinstance(part, dict) else set()

    assert keys(yaml.safe_load(block.code)) <= KEYS[block.info.split()[1]]


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=block.name) for page in PAGES for block in BLOCKS[page] if block.info == "sh"]
)
def test_launch_lines_have_flags_that_the_trainer_has(block: Block) -> None:
    words = shlex.split(block.code.replace("\\\n", " "))
    flags = {word.partition("=")[0] for word in words if word.startswith("--") or re.match(r"[\w.]+=", word)}
    assert flags
    assert flags <= FLAGS


def test_every_url_of_ours_is_an_endpoint() -> None:
    routes = {route.path for dialect in DIALECTS.values() for route in dialect.router.routes}  # type: ignore[attr-defined]
    prefixes = {path.rpartition("/")[0] for path in routes} | {""}
    for page in PAGES:
        for path in re.findall(rf"{re.escape(WRITTEN)}([\w/]*)", page.read_text("utf-8")):
            assert path in routes | prefixes, f"{page.name}: {path}"


def test_verl_and_openrlhf_have_those_settings_still(wheels: Path) -> None:
    config = yaml.safe_load((clients.unpacked("verl", wheels) / "verl/trainer/config/reward/reward.yaml").read_text())
    for flag in (flag for flag in FLAGS if flag.startswith("reward.")):
        part = config
        for name in flag.split(".")[1:]:
            assert name in part, flag
            part = part[name]
    (trainer,) = clients.unpacked("openrlhf", wheels).rglob("openrlhf/cli/train_ppo_ray.py")
    assert '"--reward.remote_url"' in trainer.read_text()


def test_every_page_says_at_a_glance_what_an_operator_asks_and_stands_on_the_first_page() -> None:
    first = (ROOT / "docs" / "trainers" / "index.md").read_text("utf-8")
    asked = ["install", "key", "several nodes", "time to expect", "watch", "an outage"]
    for page in PAGES:
        table = page.read_text("utf-8").partition("## At a glance")[2]
        rows = dict(re.findall(r"^\| ([\w ]+) \| (.+) \|$", table, re.MULTILINE))
        assert list(rows) == asked, page.name
        assert all(rows.values()), page.name
        assert f"({page.name})" in first, page.name


def test_every_page_says_what_happens_when_something_fails_and_stands_in_the_index() -> None:
    index = (ROOT / "docs" / "dialects.md").read_text("utf-8")
    for page in PAGES:
        text = page.read_text("utf-8")
        assert "**When something fails.**" in text, page.name
        assert f"(trainers/{page.name})" in index, page.name
