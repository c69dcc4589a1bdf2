"""The engine `vllm` from end to end: a scoring worker over a server of its wire schema, and over vLLM itself.

The tests marked `vllm` need `PLAUDIT_VLLM_PYTHON`, the interpreter of an environment with vLLM (docs/engines.md); they
start it on the shipped checkpoint, which takes most of a minute.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.scoring.factory import open_engine
from service.scoring.reward_model import Encoded, RewardModel
from service.scoring.vllm import VllmEngine
from service.settings import Settings
from support.broker import Broker
from support.checkpoints import checkpoint, write_golden
from support.pooling import PoolingServer
from support.stack import Stack, wait_for

MINI = Path(__file__).parents[2] / "models" / "plaudit-mini"
PYTHON = os.environ.get("PLAUDIT_VLLM_PYTHON")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_golden(checkpoint(tmp_path_factory.mktemp("served"), golden="golden.jsonl"))


def test_a_server_that_goes_is_an_outage_and_that_comes_back_is_used_again(folder: Path) -> None:
    ours = RewardModel.load(folder)
    with Broker() as broker, PoolingServer(folder) as server:
        told = {"engine": "vllm", "vllm_url": f"default={server.url}"}
        with Stack(broker, folder, executors=0, **told) as stack, stack.client() as http:

            def ask(completion: str) -> Any:
                item = {"prompt": "add", "completions": [completion]}
                return http.post("/score", json={"items": [item]}).json()["results"][0]["completions"][0]

            (served,) = wait_for(lambda: http.get("/models").json()["models"], 60, "a scorer")
            assert served["engine"] == "vllm 0.0-test"
            right = ours.score([ours.encode("add", "a + b")])[0]
            assert ask("a + b")["score"] == pytest.approx(right, abs=1e-5)

            server.broken = 503
            lost = ask("a - b")
            assert (lost["status"], lost["score"], lost["trainable"]) == ("infra_error", None, False)
            assert lost["error"]["code"] == "engine_unavailable"
            assert lost["error"]["retryable"]

            server.broken = None
            right = ours.score([ours.encode("add", "a - b")])[0]
            assert ask("a - b")["score"] == pytest.approx(right, abs=1e-5)


def test_a_worker_over_a_server_of_other_weights_does_not_start(folder: Path, tmp_path: Path) -> None:
    from support.checkpoints import write_model

    other = checkpoint(tmp_path)
    write_model(other, seed=8)
    with Broker() as broker, PoolingServer(other) as server:
        told = {"engine": "vllm", "vllm_url": f"default={server.url}"}
        with Stack(broker, folder, scorers=0, executors=0, **told) as stack:
            worker = stack.start_scorer()
            assert worker.popen.wait(60) == 3
            assert "differ from its golden set" in worker.log.read_text()


# --- vLLM itself -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    if PYTHON is None:
        pytest.skip("PLAUDIT_VLLM_PYTHON names no environment with vLLM")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    made = Settings(engine="vllm", vllm_python=Path(PYTHON), vllm_args="--enforce-eager")
    engine, parity = open_engine("default", str(MINI), made)
    assert isinstance(engine, VllmEngine)
    assert parity.n == 14
    assert engine.engine.startswith("vllm 0.")
    yield engine
    engine.close()


@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_vllm_scores_as_we_do(engine: VllmEngine) -> None:
    ours = RewardModel.load(MINI)
    completions = ["    return x\n", "    return x + 1\n" * 40, "pass", "    return x\n"]
    for prompt in ("def f(x):\n", "# a longer prompt than a block of vLLM's prefix cache\n" * 20):
        batch = [one for one in ours.encode_group(prompt, completions) if isinstance(one, Encoded)]
        right = ours.score(batch)
        for _ in range(2):  # the second time from its cache
            assert engine.score(batch) == pytest.approx(right, abs=1e-4)


@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_what_vllm_refuses_is_the_inputs_fault(engine: VllmEngine) -> None:
    from service.scoring.vllm import Rejected

    with pytest.raises(Rejected, match="out of vocabulary"):
        engine.score([Encoded((1, 99_999), 0, truncated=False)])


@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_vllm_killed_leaves_nothing_and_is_started_again(engine: VllmEngine) -> None:
    assert engine._server is not None
    process = engine._server._process
    assert process is not None
    batch = [engine.encoder.encode("def f(x):\n", "    return x\n")]
    right = engine.score(batch)
    group = process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert engine.score(batch) == right
    wait_for(lambda: not members(group), what="the old server's processes to end")


def members(group: int) -> list[str]:
    """Live processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, pgrp = rest.split()[:3]
        if int(pgrp) == group and state != "Z":
            found.append(name)
    return found
