"""Which actors are started, drained and removed."""

from __future__ import annotations

from typing import Any

import pytest

from service.on_ray.placement import Role
from service.on_ray.reconcile import (
    Action,
    Member,
    RestartPauses,
    Rules,
    TreeReport,
    decide,
    note_work,
)

URL = "redis://:secret@10.0.0.1:7000"
NOW = 1000.0


def rules(redis_url: str | None = URL, **targets: int) -> Rules:
    return Rules(targets, redis_url, silent_s=15.0, drain_s=20.0)  # type: ignore[arg-type]


def member(role: Role = "executor", number: int = 1, phase: Any = "ready", **fields: Any) -> Member:
    report = TreeReport(phase, redis_url="" if role == "broker" else URL, host="h", pids=(10 * number, 10 * number + 1))
    return Member(role, number, 0.0, **{"report": report, "answered": NOW, "at_work": NOW} | fields)


def steps(members: list[Member], wanted: Rules, pauses: RestartPauses | None = None, now: float = NOW) -> list[str]:
    def shown(action: Action) -> str:
        return f"{action.verb} {action.role if action.member is None else action.member.label}"

    return [shown(action) for action in decide(members, wanted, pauses or RestartPauses(), now)]


def test_what_is_missing_is_started() -> None:
    wanted = rules(broker=1, api=1, scorer=2, executor=2)
    here = [member("broker"), member("api"), member("scorer"), member()]
    assert steps(here, wanted) == ["start scorer", "start executor"]


def test_nothing_but_the_broker_starts_before_there_is_a_queue() -> None:
    assert steps([], rules(None, broker=1, api=1, scorer=1, executor=4)) == ["start broker"]


def test_a_full_house_is_left_alone() -> None:
    assert steps([member("broker"), member("api"), member()], rules(broker=1, api=1, executor=1)) == []


def test_an_actor_that_is_gone_is_replaced_at_once() -> None:
    assert steps([member(gone=True), member(number=2)], rules(executor=2)) == ["remove executor-1", "start executor"]
    assert steps([member(report=None, gone=True)], rules(executor=1)) == ["remove executor-1", "start executor"]


def test_a_tree_that_ended_by_itself_is_told_with_its_last_words() -> None:
    ended = member(report=TreeReport("ended", URL, exit_code=3, detail="no user namespaces"))
    [action, *rest] = decide([ended], rules(executor=0), RestartPauses(), NOW)
    assert (action.verb, action.failed, rest) == ("remove", True, [])
    assert action.reason == "ended with exit code 3: no user namespaces"


def test_trees_that_keep_ending_are_started_ever_more_rarely() -> None:
    pauses, times = RestartPauses(), []
    for _ in range(8):
        pauses.failed("executor", 0.0)
        times.append(pauses.until["executor"])
    assert times == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert steps([], rules(executor=1, scorer=1), pauses, 29.9) == ["start scorer"]
    assert steps([], rules(executor=1), pauses, 30.0) == ["start executor"]
    pauses.succeeded("executor")
    pauses.failed("executor", 100.0)
    assert pauses.until["executor"] == 101.0


def test_an_actor_that_never_had_a_place_waits() -> None:
    assert steps([member(report=None, answered=0.0)], rules(executor=1), now=1e6) == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"answered": NOW - 16}, "silent for 15 s"), ({"at_work": NOW - 16}, "no worker of it was announced for 15 s")],
)
def test_silence_is_not_endured(fields: dict[str, Any], reason: str) -> None:
    [removal, start] = decide([member(**fields)], rules(executor=1), RestartPauses(), NOW)
    assert (removal.verb, removal.reason, removal.failed, start.verb) == ("remove", reason, False, "start")


def test_workers_of_a_queue_that_is_gone_are_replaced() -> None:
    here = [member("broker"), member("api"), member("scorer"), member()]
    moved = rules("redis://:secret@10.0.0.2:7000", broker=1, api=1, scorer=1, executor=1)
    removed = ["remove api-1", "remove scorer-1", "remove executor-1"]
    assert steps(here, moved) == [*removed, "start api", "start scorer", "start executor"]
    assert steps(here[1:], rules(None, broker=1, api=1, scorer=1, executor=1)) == ["start broker"]


def test_the_least_useful_go_first_and_finish_what_they_hold() -> None:
    waiting, starting = member(number=2, report=None), member(number=3, phase="starting")
    here = [member(number=1), waiting, starting, member(number=4)]
    assert steps(here, rules(executor=3)) == ["remove executor-2"]
    assert steps(here, rules(executor=2)) == ["remove executor-2", "drain executor-3"]
    assert steps(here, rules(executor=1)) == ["remove executor-2", "drain executor-3", "drain executor-4"]


def test_a_draining_actor_counts_no_more_and_ends_in_time() -> None:
    draining = member(draining=NOW)
    assert steps([draining], rules(executor=1)) == ["start executor"]
    assert steps([draining], rules(executor=0), now=NOW + 30.0) == []
    assert steps([draining], rules(executor=0), now=NOW + 30.1) == ["remove executor-1"]
    ended = member(draining=NOW, report=TreeReport("ended", URL, exit_code=0))
    [action] = decide([ended], rules(executor=0), RestartPauses(), NOW)
    assert (action.reason, action.failed) == ("drained", False)


def test_an_api_that_does_not_answer_is_replaced() -> None:
    [removal, start] = decide([member("api", at_work=NOW - 16)], rules(api=1), RestartPauses(), NOW)
    assert (removal.reason, start.verb) == ("its API did not answer for 15 s", "start")


def test_a_worker_is_seen_by_its_host_and_pid() -> None:
    here = [member(number=1, at_work=0.0), member(number=2, at_work=0.0)]
    note_work(here, {("h", 11), ("other", 20)}, never, NOW)
    assert [each.at_work for each in here] == [NOW, 0.0]


def test_an_api_is_seen_by_its_answer() -> None:
    here = [member("api", number=1, at_work=0.0), member("api", number=2, at_work=0.0)]
    note_work(here, set(), lambda each: each.number == 1, NOW)
    assert [each.at_work for each in here] == [NOW, 0.0]


def test_a_queue_that_is_away_is_nobodys_fault() -> None:
    here = [member(at_work=0.0), member(number=2, phase="starting", at_work=0.0), member("broker", at_work=0.0)]
    note_work(here, None, never, NOW)
    assert [each.at_work for each in here] == [NOW, NOW, NOW]


def test_the_time_of_starting_is_not_silence() -> None:
    starting = [member(phase="starting", at_work=0.0), member("api", phase="starting", at_work=0.0)]
    note_work(starting, set(), never, NOW)
    assert [each.at_work for each in starting] == [NOW, NOW]


def never(member: Member) -> bool:
    return False
