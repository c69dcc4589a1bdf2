"""Each process with its own extra alone, as the images install it: an executor has no HTTP server and no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.broker import Broker
from support.stack import wait_for

ONE_EXTRA = Path(__file__).parents[1] / "support" / "one_extra.py"
PROCESSES = {
    "api": (["serve", "--port", "0"], "Application startup complete."),
    "scorer": (["worker", "score"], "worker ready"),
    "executor": (["worker", "execute", "--executors", "1", "--isolation-accept", "userns"], "worker ready"),
    "executor, two of them": (
        ["worker", "execute", "--executors", "2", "--isolation-accept", "userns"],
        "worker ready",
    ),
}


@pytest.mark.parametrize("kind", PROCESSES)
def test_a_process_starts_with_its_own_extra_alone(kind: str, broker: Broker, tiny_model: Path, tmp_path: Path) -> None:
    words, ready = PROCESSES[kind]
    words = [*words, "--model", f"default={tiny_model}"] if kind == "scorer" else words
    argv = [sys.executable, str(ONE_EXTRA), kind.partition(",")[0], *words, "--redis-url", broker.url]
    log = tmp_path / "log"
    environ = {**os.environ, "PLAUDIT_LOG_FORMAT": "json"}
    with (
        log.open("wb") as stderr,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=stderr, env=environ) as process,
    ):
        try:
            wait_for(lambda: ready in log.read_text() or process.poll() is not None, 60, f"the {kind}")
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(30)
