"""The blocks of the pages that need a running service, run against one, in the order they are written."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import httpx
import pytest

from support.pages import PAGES, Block, blocks
from support.stack import Stack

WRITTEN = "http://127.0.0.1:8000"  # where the pages say that the service is


def of(info: str) -> list[Any]:
    return [pytest.param(block, id=block.name) for page in PAGES for block in blocks(page) if block.info == info]


@pytest.mark.parametrize("block", of("python service"))
def test_python_blocks_run_against_a_service(block: Block, stack: Stack) -> None:
    exec(compile(block.code.replace(WRITTEN, stack.url), block.name, "exec"), {"__name__": block.name})


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("block", of("bash service"))
def test_shell_blocks_run_against_a_service(block: Block, stack: Stack) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code.replace(WRITTEN, stack.url)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    if block.page.name == "README.md":  # what the page says of this answer
        result = json.loads(done.stdout)["results"][0]
        assert result["order"] == [1, 0]
        assert result["completions"][1]["components"]["tests"]["verdict"] == "passed"
        assert result["group"]["best"] == 1


def test_the_front_page_is_served_under_a_policy_that_lets_nothing_else_in(http: httpx.Client) -> None:
    answer = http.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy


def test_every_field_that_the_front_page_reads_is_answered(http: httpx.Client) -> None:
    info = http.get("/info").json()
    assert {"version", "isolation", "models", "languages", "queues", "workers"} <= info.keys()
    assert {"name", "revision", "architecture", "dtype", "parameters", "max_length", "parity", "workers"} <= info[
        "models"
    ][0].keys()
    assert {"depth", "cost", "max_depth", "max_cost", "oldest_ms", "drained_cost_per_s"} <= info["queues"][
        "execute"
    ].keys()
    assert http.get("/ready").json()["ready"] is True
