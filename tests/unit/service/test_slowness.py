"""Where the time of slow work went: the parts of a job, and the one that says why."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.run_records import Purpose, RunRecord, purpose_of
from service import slowness


def run(purpose: Purpose, wall_ms: float, cpu_ms: float = 0.0, starved_ms: float = 0.0) -> RunRecord:
    return RunRecord(purpose, 10.0, 10.0 + wall_ms / 1000, cpu_ms, starved_ms)


@pytest.mark.parametrize(
    ("runs", "compute_ms", "reason"),
    [
        ([run("program", 2000, 10)], 2010.0, "waiting"),
        ([run("program", 2000, 1900)], 2010.0, "cpu"),
        ([run("program", 2000, 500, starved_ms=1400)], 2010.0, "starvation"),
        ([run("compile", 3000, 2500), run("program", 20, 2)], 3100.0, "compile"),
        ([run("compile", 3000, 900, starved_ms=2000), run("program", 20, 2)], 3100.0, "starvation"),
        ([run("tests", 900, 880), run("program", 900, 5)], 910.0, "cpu"),
        ([run("control", 5, 1), run("program", 5, 1)], 700.0, "overhead"),
        ([], 50.0, "overhead"),
    ],
    ids=["sleeps", "computes", "starves", "is compiled", "compiler starves", "tests compute", "is prepared", "unknown"],
)
def test_a_slow_job_says_why(runs: list[RunRecord], compute_ms: float, reason: str) -> None:
    assert slowness.why(slowness.of_runs(runs, compute_ms)) == reason


def test_the_idle_time_of_a_short_run_is_not_called_sleep() -> None:
    assert "waiting" not in slowness.of_runs([run("program", 200, 2)], 210.0)


@given(
    st.lists(
        st.builds(
            run, st.sampled_from(["program", "tests", "compile", "checker"]), *[st.floats(0, 1e5, allow_nan=False)] * 3
        ),
        max_size=6,
    ),
    st.floats(0, 1e5),
)
def test_parts_add_up_to_the_time_and_none_is_negative(runs: list[RunRecord], compute_ms: float) -> None:
    parts = slowness.of_runs(runs, compute_ms)
    assert sum(parts.values()) == pytest.approx(compute_ms, abs=0.5)
    assert all(ms >= 0 for ms in parts.values())
    assert parts.keys() <= set(slowness.PARTS)


def test_a_group_is_slow_by_its_own_text_or_by_its_company() -> None:
    assert slowness.why(slowness.of_batch(1000, 0, 900, 1000)) == "text"
    assert slowness.why(slowness.of_batch(1000, 0, 100, 1000)) == "others"
    assert slowness.why(slowness.of_batch(1000, 800, 900, 1000)) == "starvation"


def test_the_queue_is_a_part_and_an_old_worker_says_nothing_of_its_own() -> None:
    assert slowness.with_queue(None, 80.0, 20.0) == {"queue": 80.0, "overhead": 20.0}
    assert slowness.with_queue({"cpu": 5.0, "of a later version": 9.0}, 0.0, 14.0) == {"cpu": 5.0}
    assert slowness.why(slowness.with_queue({"cpu": 50.0}, 80.0, 50.0)) == "queue"


def test_the_page_explains_every_part() -> None:
    page = resources.files("service.api.routes").joinpath("dashboard", "operators.js").read_text("utf-8")
    explained = re.search(r"^const WHY = \{\n(.+?)^\};", page, re.MULTILINE | re.DOTALL)
    assert explained is not None
    assert re.findall(r"^  (\w+): \[", explained[1], re.MULTILINE) == list(slowness.PARTS)


def test_the_purpose_of_a_run_is_known_by_its_role() -> None:
    assert purpose_of("tests") == "tests"
    assert purpose_of("exec") == "program"
