"""A row of each data set's own schema becomes a problem whose reference passes and whose samples keep their numbers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import HostLacks, Invalid, UsageError
from sandbox.language_specs import LANGUAGE_SPECS
from support.hub_rows import (
    ACECODE,
    ADD,
    APPS,
    BIGCODEBENCH,
    CODECONTESTS,
    CODEFORCES,
    DOUBLE,
    HUMANEVAL,
    LCB_CALLS,
    LCB_STDIN,
    MBPP,
    MBPP_PLUS,
    MBPP_SANITIZED,
    MULTIPL_E,
    SOLVED,
    lcb,
    packed,
)
from training.data.adapters import ADAPTERS, entries, evaluation_texts
from training.data.adapters.base import DatasetEntry
from training.data.adapters.livecodebench import cases_of
from training.data.adapters.mbpp_plus import check_of
from training.data.adapters.multipl_e import CODES
from training.data.collect import collect_problems
from training.data.test_formats import sandbox_suite, wire_suite
from training.generation.sample import programs_of, sampling_request
from training.generation.sources.base import CompletionReply, before_stop
from training.pipeline.config import HubConfig, Recipe, SourceConfig, SplitConfig
from training.pipeline.files import read_jsonl, write_jsonl
from training.pipeline.records import Problem, read_problems, read_programs
from training.pipeline.run import Run


def read(folder: Path, adapter: str, *rows: dict[str, Any], **fields: Any) -> list[DatasetEntry]:
    path = folder / "rows.jsonl"
    write_jsonl(path, rows)
    return list(entries(HubConfig(adapter=adapter, path=str(path), **fields)))


def test_acecode_keeps_shipped_rates_only_on_request(tmp_path: Path) -> None:
    (entry,) = read(tmp_path, "acecode-87k", ACECODE)
    assert entry.problem.entry_point == "double"
    assert entry.problem.tests == ("assert double(1) == 2", "assert double(-2) == -4")
    assert entry.problem.prompt.endswith("For example:\n\nassert double(1) == 2\n")
    assert [(p.copies, p.pass_rate, p.solution) for p in entry.programs] == [
        (2, None, DOUBLE),
        (1, None, "def double(x):\n    return x\n"),
    ]
    assert entry.programs[0].sample_ids == ("oss_7#0", "oss_7#1")
    (shipped,) = read(tmp_path, "acecode-87k", ACECODE, shipped_rates=True)
    assert [(p.pass_rate, p.label) for p in shipped.programs] == [(0.9, "shipped"), (0.0, "shipped")]


def test_acecode_pairs_become_a_run_that_fit_reads(tmp_path: Path) -> None:
    rows = [
        {
            "id": name,
            "instruction": f"Task {name}: write a function.",
            "input": "",
            "chosen": f"```python\n{good}\n```",
            "rejected": f"```python\n{bad}\n```",
        }
        for name, good, bad in [
            ("a", "x = 1", "x = 2"),
            ("a", "x = 1", "x = 3"),
            ("a", "x = 1", "x = 2"),
            ("b", "y = 1", "y = 2"),
        ]
    ]
    found = read(tmp_path, "acecodepair-300k", *rows)
    assert [len(entry.pairs) for entry in found] == [2, 1]
    recipe = Recipe(hub=HubConfig(adapter="acecodepair-300k", path=str(tmp_path / "rows.jsonl")))
    run = Run(tmp_path / "run", quiet=True)
    assert collect_problems(recipe, run)["pairs"] == 3
    texts = {p.program_id: p.solution for p in read_programs(run.path("verified.jsonl"))}
    pairs = [(texts[r["chosen"]], texts[r["rejected"]]) for r in read_jsonl(run.path("pairs.jsonl"))]
    assert pairs == [("x = 1\n", "x = 2\n"), ("x = 1\n", "x = 3\n"), ("y = 1\n", "y = 2\n")]


@pytest.mark.parametrize(
    ("adapter", "row", "kind", "tests"),
    [
        ("humaneval", HUMANEVAL, "check", 1),
        ("humaneval+", HUMANEVAL, "check", 1),
        ("mbpp", MBPP, "assert", 1),
        ("mbpp", MBPP_SANITIZED, "assert", 1),
        ("mbpp+", MBPP_PLUS, "check", 1),
        ("multipl-e", MULTIPL_E, "script", 1),
        ("livecodebench", lcb("1", LCB_STDIN, packed(json.dumps(LCB_STDIN)), {}), "suite", 1),
        ("livecodebench", lcb("2", LCB_CALLS, json.dumps(LCB_CALLS), {"func_name": "has"}), "suite", 1),
    ],
)
def test_every_schema_becomes_a_suite_that_engine_and_service_take(
    tmp_path: Path, adapter: str, row: dict[str, Any], kind: str, tests: int
) -> None:
    (entry,) = read(tmp_path, adapter, row)
    problem = entry.problem
    assert (problem.kind, len(problem.tests)) == (kind, tests)
    assert problem.prompt
    parts = (problem.kind, problem.tests, problem.test_setup, problem.entry_point)
    assert sandbox_suite(*parts)
    assert kind in ("suite", wire_suite(*parts).kind)


def test_mbpp_has_its_imports_and_multipl_e_the_engines_language(tmp_path: Path) -> None:
    assert read(tmp_path, "mbpp", MBPP)[0].problem.test_setup == "import math"
    problem = read(tmp_path, "multipl-e", MULTIPL_E)[0].problem
    assert (problem.language, problem.base_id, problem.entry_point) == ("cpp", "HumanEval/900", "double")


def by_language(folder: Path, *codes: str) -> Path:
    """A folder with a file of one row per MultiPL-E language."""
    for code in codes:
        language = "go_test.go" if code == "go" else code
        write_jsonl(
            folder / f"humaneval-{code}.jsonl", [MULTIPL_E | {"language": language, "stop_tokens": [f"\n{code}"]}]
        )
    return folder


def test_several_languages_are_one_run(tmp_path: Path) -> None:
    hub = HubConfig(adapter="multipl-e", path=str(by_language(tmp_path, "cpp", "go", "js", "zz")), name="humaneval")
    found = list(entries(dataclasses.replace(hub, languages=("javascript", "c++", "go"))))
    assert [entry.problem.language for entry in found] == ["javascript", "cpp", "go_test"]
    assert [entry.problem.stop for entry in found] == [("\njs",), ("\ncpp",), ("\ngo",)]
    assert len({entry.problem.base_id for entry in found}) == 1  # so one fold
    every = list(entries(dataclasses.replace(hub, languages=("all",))))
    assert sorted(entry.problem.language for entry in every) == ["cpp", "go_test", "javascript"]


def test_the_languages_of_multipl_e_are_those_of_the_sandbox() -> None:
    assert set(CODES) <= {name for spec in LANGUAGE_SPECS for name in (spec.name, spec.test_name)}
    assert {spec.name for spec in LANGUAGE_SPECS} - set(CODES) == {"c", "go"}  # Go's are test files; C it does not have


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"languages": ("klingon",)}, UsageError, "hub.languages: language 'klingon'"),
        ({"languages": ("c",)}, UsageError, "MultiPL-E has no c"),
        ({"languages": ("rust",)}, HostLacks, "no file humaneval-rs.jsonl"),
        ({"languages": ("cpp",), "name": "humaneval-cpp"}, UsageError, "hub.name"),
        ({"languages": ("cpp",), "adapter": "mbpp"}, UsageError, "only the adapter multipl-e"),
    ],
)
def test_a_language_that_is_not_there_is_named(
    tmp_path: Path, changed: dict[str, Any], error: type[Exception], said: str
) -> None:
    hub = HubConfig(adapter="multipl-e", path=str(by_language(tmp_path, "cpp")), name="humaneval")
    with pytest.raises(error, match=said):
        list(entries(dataclasses.replace(hub, **changed)))


def test_a_language_that_plaudit_does_not_have_is_unusable(tmp_path: Path) -> None:
    (entry,) = read(tmp_path, "multipl-e", MULTIPL_E | {"language": "jl"})
    assert "language 'jl'" in entry.unusable


def test_a_completion_ends_before_its_languages_stop_tokens() -> None:
    stops = ("\n}", "\nint")
    assert before_stop("  return 1;\n}\nint main", stops) == "  return 1;"
    assert before_stop("  return 1;\nint x;\n}", stops) == "  return 1;"
    assert before_stop("  return 1;", stops) == "  return 1;"
    assert before_stop("}", ()) == "}"
    problem = Problem("T", "T", "long f() {", "f", None, "", (), "", "", language="cpp", kind="script", stop=stops)
    reply = CompletionReply("T", ("  return 1;\n}\nint g() {", "  return 1;"), ("stop", "stop"))
    (program,) = programs_of(problem, reply, SourceConfig(chat=False))
    assert program.copies == 2
    assert "int g" not in program.solution
    asked = sampling_request(problem, Recipe(sampler=SourceConfig(chat=False)))
    assert asked.stop == stops


def suite(entry: DatasetEntry) -> Any:
    return json.loads(entry.problem.tests[0])


def test_livecodebench_is_judged_as_by_its_own_harness(tmp_path: Path) -> None:
    (entry,) = read(tmp_path, "livecodebench", lcb("2", LCB_CALLS, "[]", {"func_name": "has"}))
    assert suite(entry)["entry_point"] == "Solution.has|has"
    assert suite(entry)["cases"] == [{"args": [[1, 2], 1], "expected": True}]
    assert "from typing import *" in suite(entry)["prelude"]
    (entry,) = read(tmp_path, "livecodebench", lcb("1", LCB_STDIN, "[]", {}))
    assert suite(entry)["compare"] == "lines"


def test_livecodebench_comes_by_files_and_by_release(tmp_path: Path) -> None:
    for name in ("test", "test2", "test3"):
        write_jsonl(tmp_path / f"{name}.jsonl", [lcb(name, LCB_STDIN, "[]", {})])
    hub = HubConfig(adapter="livecodebench", path=str(tmp_path))
    names = [entry.problem.task_id for entry in entries(dataclasses.replace(hub, version="release_v2"))]
    assert names == ["LiveCodeBench/test", "LiveCodeBench/test2"]
    (entry,) = entries(dataclasses.replace(hub, files=("test3.jsonl",)))
    assert entry.problem.task_id == "LiveCodeBench/test3"
    for wrong in (
        {"version": "v4"},
        {"version": "release_v2", "files": ("test.jsonl",)},
        {"adapter": "apps", "version": "release_v2"},
    ):
        with pytest.raises(UsageError, match=r"hub\.version"):
            list(entries(dataclasses.replace(hub, **wrong)))


def test_contest_sets_keep_what_they_call_right_and_wrong(tmp_path: Path) -> None:
    (entry,) = read(tmp_path, "codecontests", CODECONTESTS)
    assert entry.problem.canonical == ADD
    assert [(program.sample_ids, program.pass_rate) for program in entry.programs] == [
        (("CodeContests/1_A. Sum#wrong-0",), None)
    ]
    assert len(suite(entry)["cases"]) == 2
    (entry,) = read(tmp_path, "codeforces", CODEFORCES)
    assert suite(entry)["checker"]["source"].startswith("from __future__ import annotations\nimport sys\nsys.argv[2]")
    assert read(tmp_path, "codeforces", CODEFORCES | {"interaction_format": "Ask and answer."}) == []
    (entry,) = read(tmp_path, "bigcodebench-instruct", BIGCODEBENCH)
    assert entry.problem.prompt == BIGCODEBENCH["instruct_prompt"]


def test_a_problem_whose_tests_cannot_be_used_is_left_out_and_named(tmp_path: Path) -> None:
    broken = APPS | {"problem_id": 6, "input_output": json.dumps({"inputs": ["1"], "outputs": []})}
    none = APPS | {"problem_id": 7, "input_output": ""}
    write_jsonl(tmp_path / "rows.jsonl", [APPS, broken, none])
    run = Run(tmp_path / "run", quiet=True)
    summary = collect_problems(Recipe(hub=HubConfig(adapter="apps", path=str(tmp_path / "rows.jsonl"))), run)
    assert (summary["problems"], summary["unusable"]) == (1, 2)
    reasons = {row["task_id"]: row["reason"] for row in read_jsonl(run.path("unusable.jsonl"))}
    assert "1 inputs and 0 outputs" in reasons["APPS/6"]
    assert "input_output" in reasons["APPS/7"]


@pytest.mark.parametrize(
    ("test", "inside"),
    [
        ("inputs = [[1]]\nresults = [2]\nfor i, o in zip(inputs, results):\n    assert double(*i) == o\n", "for i, o"),
        (
            "def ref(x):\n    return 2 * x\nfor x in (1, 2):\n    assert double(x) == ref(x)\nassert ref(1) == 2\n",
            "ref(1)",
        ),
    ],
)
def test_a_test_program_becomes_a_check(test: str, inside: str) -> None:
    source = check_of(test, "double")
    assert inside in source.partition("def check(candidate):\n    double = candidate\n")[2]
    scope: dict[str, Any] = {}
    exec(source, scope)
    scope["check"](lambda x: 2 * x)
    with pytest.raises(AssertionError):
        scope["check"](lambda x: x)
    with pytest.raises(ValueError, match="calls"):
        check_of(test, "triple")


def test_packed_cases_that_hold_more_than_text_are_refused() -> None:
    with pytest.raises(Invalid):
        cases_of(packed(Path("x")))
    with pytest.raises(Invalid):
        cases_of("no such thing")


def test_parquet_reads_like_jsonl(tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.Table.from_pylist([HUMANEVAL]), tmp_path / "rows.parquet")
    (entry,) = entries(HubConfig(adapter="humaneval", path=str(tmp_path / "rows.parquet")))
    assert entry == read(tmp_path, "humaneval", HUMANEVAL)[0]


def test_a_problem_of_an_evaluation_set_is_left_out(tmp_path: Path) -> None:
    question = "Given a list of numbers return the second largest distinct value or None when there is no such value."
    write_jsonl(tmp_path / "held.jsonl", [HUMANEVAL | {"prompt": f'def second(xs):\n    """{question}"""\n'}])
    rows = [ACECODE, ACECODE | {"id": "oss_8", "question": f"Please: {question} Be quick."}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    hub = HubConfig(
        adapter="acecode-87k", path=str(tmp_path / "rows.jsonl"), evaluation=(f"humaneval={tmp_path}/held.jsonl",)
    )
    run = Run(tmp_path / "run", quiet=True)
    assert collect_problems(Recipe(hub=hub), run)["problems"] == 1
    (left_out,) = read_jsonl(run.path("unusable.jsonl"))
    assert left_out["task_id"] == "oss_8"
    assert "HumanEval/900" in left_out["reason"]


def test_rows_of_one_question_need_not_stand_together(tmp_path: Path) -> None:
    def pair(name: str, question: str, chosen: str, rejected: str) -> dict[str, str]:
        return {"id": name, "instruction": question, "input": "", "chosen": chosen, "rejected": rejected}

    rows = [
        pair("a", "A?", "1", "2"),
        pair("b", "B?", "1", "2"),
        pair("a", "A?", "1", "3"),
        pair("b", "Other?", "1", "2"),
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    hub = HubConfig(adapter="acecodepair-300k", path=str(tmp_path / "rows.jsonl"))
    run = Run(tmp_path / "run", quiet=True)
    summary = collect_problems(Recipe(hub=hub, split=SplitConfig(test=0, validation=0)), run)
    assert (summary["problems"], summary["programs"], summary["pairs"], summary["unusable"]) == (2, 5, 3, 1)
    weights = {(row["task_id"], row["weight"]) for row in read_jsonl(run.path("pairs.jsonl"))}
    assert weights == {("a", 0.5), ("b", 1.0)}


def test_evaluation_sets_come_from_adapters_and_from_problem_files(tmp_path: Path) -> None:
    read(tmp_path, "humaneval", HUMANEVAL)
    whole = HUMANEVAL["prompt"] + HUMANEVAL["canonical_solution"]
    assert list(evaluation_texts(f"humaneval={tmp_path}/rows.jsonl")) == [
        ("HumanEval/900", [HUMANEVAL["prompt"], whole])
    ]
    assert next(evaluation_texts(f"{tmp_path}/rows.jsonl"))[1][0] == HUMANEVAL["prompt"]


def test_a_share_of_a_hub_set_is_held_out_and_an_unknown_set_is_refused(tmp_path: Path) -> None:
    words = "red green blue black white pink gold grey teal cyan".split()  # noqa: SIM905
    rows = [
        ACECODE
        | {
            "id": f"oss_{at}",
            "question": f"Write about {word} {word}s and {at}",
            "test_cases": [f"assert {word}({at}) == {at}"],
        }
        for at, word in enumerate(words)
    ]
    read(tmp_path, "acecode-87k", *rows)
    recipe = Recipe(
        hub=HubConfig(adapter="acecode-87k", path=str(tmp_path / "rows.jsonl"), most=9),
        split=SplitConfig(test=0, validation=0, validation_other=0, validation_share=0.2),
    )
    run = Run(tmp_path / "run", quiet=True)
    assert collect_problems(recipe, run)["validation"] == 2
    assert len(read_problems(run.path("problems.jsonl"))) == 9
    assert len(read_programs(run.path("programs.jsonl"))) == 18
    bare = dataclasses.replace(recipe, hub=dataclasses.replace(recipe.hub, programs=False))
    assert collect_problems(bare, run)["programs"] == 0
    with pytest.raises(UsageError, match="acecode-87k"):
        list(entries(HubConfig(adapter="humaneval++")))
    assert {row[0] for row in SOLVED} | {"acecodepair-300k", "humaneval+", "evocodebench"} == set(ADAPTERS)
