"""Each process with its own extra alone, as the images install it: an executor has no HTTP server and no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.capabilities import HostCapabilities
from support.broker import Broker
from support.stack import wait_for

ONE_EXTRA = Path(__file__).parents[1] / "support" / "one_extra.py"
EXECUTOR = ["worker", "execute", "--isolation-accept", "userns", "--executors"]


@pytest.mark.parametrize(
    ("extra", "words", "ready"),
    [
        ("api", ["serve", "--port", "0"], "Application startup complete."),
        ("scorer", ["worker", "score", "--model"], "worker ready"),
        ("executor", [*EXECUTOR, "1"], "worker ready"),
        ("executor", [*EXECUTOR, "2"], "worker ready"),
    ],
    ids=["api", "scorer", "executor", "two executors"],
)
def test_a_process_starts_with_its_own_extra_alone(
    extra: str, words: list[str], ready: str, broker: Broker, tiny_model: Path, tmp_path: Path
) -> None:
    if extra == "executor" and HostCapabilities.probe().level not in ("strong", "userns"):
        pytest.skip("needs isolation level strong or userns")
    words = [*words, f"default={tiny_model}"] if extra == "scorer" else words
    argv = [sys.executable, str(ONE_EXTRA), extra, *words, "--redis-url", broker.url]
    log = tmp_path / "log"
    environ = {**os.environ, "PLAUDIT_LOG_FORMAT": "json"}
    with (
        log.open("wb") as stderr,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=stderr, env=environ) as process,
    ):
        try:
            wait_for(lambda: ready in log.read_text() or process.poll() is not None, 60, f"the {extra}")
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(30)
