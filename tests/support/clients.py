"""Real clients of other projects: from installed packages, or out of wheels that must never be installed beside us.

verl's and OpenRLHF's wheels ship top-level packages named like ours (`tests`, `scripts`) and need half of the world to
import; the parts that talk to a service need little. They are taken out of the wheel by path, and what surrounds them
is a stub. Where the package index is out of reach, their tests are skipped.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import logging
import shutil
import subprocess
import sys
import textwrap
import types
import venv
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

WHEELS = {
    "verl": "verl==0.9.1",
    "openrlhf": "openrlhf==0.11.2",
    "skyrl-gym": "skyrl-gym==0.4.0",
    "nemo-gym": "nemo-gym==0.7.0",  # for Python 3.14: files of it that need nothing but the standard library
}
PYTHON = {"nemo-gym": "3.14"}


@cache
def unpacked(name: str, folder: Path) -> Path:
    """The wheel's contents in a folder; downloaded without its dependencies."""
    place = folder / name
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--python-version",
        PYTHON.get(name, "3.11"),
        "--dest",
        str(place),
        WHEELS[name],
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    wheels = list(place.glob("*.whl"))
    if not wheels:
        pytest.skip(f"{WHEELS[name]} is not to be had here: {done.stderr.strip()[-200:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(place)
    return place


# verl and OpenRLHF with what their reward managers and batch types import, beside what is installed here.
TRAINERS = {
    "verl": (
        "verl==0.9.1",
        "tensordict==0.10.0",
        "pyvers==0.1.0",
        "hydra-core==1.3.8",
        "omegaconf==2.3.0",
        "antlr4-python3-runtime==4.9.3",
        "codetiming==1.4.0",
        "dill==0.4.1",
        "cloudpickle==3.1.3",
        "orjson==3.13.0",
    ),
    "openrlhf": ("openrlhf==0.11.2",),
}


@cache
def trainer_path(name: str, folder: Path) -> Path:
    """A folder for the path of a process that runs a trainer's own code; its packages without their dependencies."""
    place = folder / f"{name}-path"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place), *TRAINERS[name]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"{' '.join(TRAINERS[name])} are not to be had here: {done.stderr.strip()[-200:]}")
    for folder_of_ours in ("tests", "scripts"):  # top-level packages of both wheels, named like ours
        shutil.rmtree(place / folder_of_ours, ignore_errors=True)
    return place


# Packages with all that they depend on.
OWN = {"inspect": ("inspect_ai==0.3.285",), "verifiers": ("verifiers==0.4.0",)}


@cache
def own_environment(name: str, folder: Path) -> Path:
    """The interpreter of an environment with a package and its dependencies, and those of the client."""
    place = folder / f"{name}-environment"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", *OWN[name], "httpx>=0.27,<1", "pydantic>=2.12,<3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        pytest.skip(f"{' '.join(OWN[name])} is not to be had here: {done.stderr.strip()[-200:]}")
    return python


def _load(name: str, path: Path, *, package: bool = False) -> Any:
    locations = [str(path.parent)] if package else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=locations)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def verl_sandbox(folder: Path) -> Any:
    """verl's `utils.reward_score.sandbox_fusion`: `compute_score(url, semaphore, memory, completion, tests)`."""
    pytest.importorskip("requests")
    path = unpacked("verl", folder) / "verl" / "utils" / "reward_score" / "sandbox_fusion" / "__init__.py"
    return _load("verl_sandbox_fusion", path, package=True)


def verl_reward_loop(folder: Path, address: str, engine: str, pauses: list[float]) -> Any:
    """An object with `RewardLoopWorker`'s two methods that talk to a reward model, pointed at an address.

    Its pauses between tries are taken down in `pauses` instead of waited for.
    """
    aiohttp = pytest.importorskip("aiohttp")
    path = unpacked("verl", folder) / "verl" / "experimental" / "reward_loop" / "reward_loop.py"
    source = path.read_text("utf-8")
    worker = next(
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "RewardLoopWorker"
    )
    wanted = {"_post_request", "compute_score_disrm"}
    methods = [node for node in worker.body if isinstance(node, ast.AsyncFunctionDef) and node.name in wanted]
    assert {method.name for method in methods} == wanted
    text = "\n".join(textwrap.dedent(ast.unparse(method)) for method in methods)

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    clock = types.SimpleNamespace(sleep=sleep, TimeoutError=asyncio.TimeoutError)
    space: dict[str, Any] = {"aiohttp": aiohttp, "asyncio": clock, "logger": logging.getLogger("verl")}
    exec(compile(f"from __future__ import annotations\n{text}", str(path), "exec"), space)
    rollout, made = types.SimpleNamespace(name=engine), types.SimpleNamespace()
    model = types.SimpleNamespace(model_path="/models/of-the-trainer", rollout=rollout)
    made.config = types.SimpleNamespace(reward=types.SimpleNamespace(reward_model=model))
    made.reward_router_address = address

    async def written(text: str) -> str:
        return text

    made._preprocess_reward_inputs = written
    for name in wanted:
        setattr(made, name, types.MethodType(space[name], made))
    return made


def openrlhf_agent(folder: Path) -> Any:
    """OpenRLHF's `utils.agent`, its logger stubbed as its own tests do."""
    pytest.importorskip("aiohttp")
    for name in ("openrlhf", "openrlhf.utils", "openrlhf.utils.logging_utils"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["openrlhf.utils.logging_utils"].init_logger = logging.getLogger  # type: ignore[attr-defined]
    (path,) = unpacked("openrlhf", folder).rglob("openrlhf/utils/agent.py")
    return _load("openrlhf_agent", path)
