"""verl at its widest, by `benchmarks/widest.py`: all right at their first try, below the client's 30 s, run once."""

from __future__ import annotations

import importlib
import json

import httpx
import pytest

from support.pages import ROOT
from support.stack import Stack, wait_for


@pytest.mark.extended
@pytest.mark.timeout(240)
async def test_512_calls_at_once_are_all_right_in_time_and_run_once(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.start_executor()
    wait_for(lambda: httpx.get(f"{stack.url}/info", trust_env=False).json()["workers"]["execute"] == 2, 60)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    widest = importlib.import_module("widest")
    done = 'plaudit_jobs_total{kind="execute",state="ok"}'
    before = stack.metric(done)
    first, again = await widest.twice(stack.url, "python")
    assert first.wrong + again.wrong == []
    assert max(first.took) < widest.CLIENT_TIMEOUT_S
    assert stack.metric(done) == before + widest.NUM_PROGRAMS * widest.NUM_TESTS
    print(json.dumps({"p50 s": first.cut(0.5), "p99 s": first.cut(0.99), "again s": again.cut(1.0)}))
