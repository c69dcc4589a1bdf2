"""What conformance tests share: the service as processes for right answers, a scripted one for faults, the clients."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from plaudit.integrations import batcher
from plaudit.integrations.batcher import RewardBatcher
from sandbox.capabilities import HostCapabilities
from support import clients
from support.broker import Broker
from support.checkpoints import checkpoint
from support.scripted import Scripted
from support.stack import Stack

SCHEMAS = json.loads(Path(__file__).with_name("schemas.json").read_text("utf-8"))
Fits = Callable[[str, Any], None]
RewardLoop = Callable[..., Any]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole service, ready, with a tiny model of random weights."""
    walls = HostCapabilities.probe()
    if walls.level not in ("strong", "userns"):
        pytest.skip(f"programs cannot run here; missing: {'; '.join(walls.missing)}")
    model = checkpoint(tmp_path_factory.mktemp("tiny"))
    with Broker() as broker, Stack(broker, model) as one:
        yield one
    shutil.rmtree(one.folder, ignore_errors=True)


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client() as client:
        yield client


@pytest.fixture(scope="session")
def scripted() -> Iterator[Scripted]:
    """An API whose service answers by a script; give it a new one with `says`."""
    with Scripted() as one:
        yield one


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wheels")


@pytest.fixture
def verl_sandbox(wheels: Path) -> Any:
    return clients.verl_sandbox(wheels)


@pytest.fixture
def openrlhf_agent(wheels: Path) -> Any:
    return clients.openrlhf_agent(wheels)


@pytest.fixture
def verl_reward_loop(wheels: Path) -> RewardLoop:
    return lambda address, engine, pauses=None: clients.verl_reward_loop(
        wheels, address, engine, [] if pauses is None else pauses
    )


@pytest.fixture
async def nothing_left_open(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Plug-ins live as long as their trainer; here they give their connections back."""
    made: set[RewardBatcher] = set()
    monkeypatch.setattr(batcher, "_alive", made)
    yield
    for rater in made:
        rater.close()
        await rater.close_async()


@pytest.fixture
def fits() -> Fits:
    """Check a body against one of the schemas: `fits("RunCodeResponse", body)`."""

    def check(name: str, body: Any) -> None:
        jsonschema.validate(body, {"$ref": f"#/$defs/{name}", **SCHEMAS})

    return check


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the tables of docs/dialects.md anew")
