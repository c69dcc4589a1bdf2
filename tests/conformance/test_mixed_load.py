"""All kinds of trainers at once, for ten seconds: `benchmarks/trainers.py`, which runs for two minutes, in short."""

from __future__ import annotations

import importlib

import pytest

from support.pages import ROOT
from support.stack import Stack

SECONDS = 10.0


@pytest.mark.timeout(120)
async def test_trainers_at_once_get_fair_shares_and_no_wrong_answer(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    trainers = importlib.import_module("trainers")
    crowds, began = await trainers.mixed(stack.url, SECONDS, stack.model)
    with capsys.disabled():
        print("\n" + trainers.table(crowds, began, SECONDS))
    for crowd in crowds:
        assert crowd.count("wrong") == 0, crowd.name
        assert crowd.count("right") > 0, crowd.name
        assert crowd.longest_pause(began) < SECONDS, f"{crowd.name} starved"
    for name, due in trainers.dues(crowds).items():
        assert 0.4 < due < 2.5, f"{name} got {due:.2f} of its share"
