"""Functions and classes under test files: BigCodeBench, KodCode, LeetCodeDataset and ClassEval.

| adapter | fields of a row that are read |
|---|---|
| bigcodebench | task_id, complete_prompt, code_prompt, canonical_solution, test, entry_point |
| bigcodebench-instruct | the same, and instruct_prompt |
| kodcode | question_id, question, solution, test, test_info |
| leetcode | task_id, problem_description, starter_code, prompt, completion, entry_point, test |
| classeval | task_id, skeleton, solution_code, test, class_name |

A BigCodeBench prompt to complete is code that goes on (`sampler.chat = false`); the others ask in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from training.data.adapters.base import DatasetEntry, labelled_entry, question
from training.pipeline import config


def entries(rows: Iterable[dict[str, Any]], hub: config.HubConfig) -> Iterator[DatasetEntry]:
    for row in rows:
        yield READERS[hub.adapter](row)


def _bigcodebench(row: Mapping[str, Any], prompt: str = "complete_prompt") -> DatasetEntry:
    opening = row.get("code_prompt") or row["complete_prompt"]
    return labelled_entry(
        str(row["task_id"]),
        row[prompt],
        {"kind": "unittest", "source": row["test"], "entry_point": row["entry_point"]},
        "test",
        source="BigCodeBench",
        license_="Apache-2.0",
        right=[opening + row["canonical_solution"]],
        entry_point=row["entry_point"],
    )


def _bigcodebench_instruct(row: Mapping[str, Any]) -> DatasetEntry:
    return _bigcodebench(row, "instruct_prompt")


def _kodcode(row: Mapping[str, Any]) -> DatasetEntry:
    named = row.get("test_info") or [{}]
    return labelled_entry(
        f"KodCode/{row['question_id']}",
        row["question"],
        row["test"],
        "test",
        source="KodCode",
        license_="CC-BY-NC-4.0",
        right=[row["solution"]],
        entry_point=str(named[0].get("function_name") or ""),
    )


def _leetcode(row: Mapping[str, Any]) -> DatasetEntry:
    entry_point = str(row["entry_point"]).replace("()", "")
    prelude = row.get("prompt") or ""  # imports and helpers, such as ListNode, that LeetCode gives
    return labelled_entry(
        f"LeetCode/{row['task_id']}",
        question(row["problem_description"], row.get("starter_code")),
        {"kind": "check", "test": row["test"], "entry_point": entry_point, "prelude": prelude},
        "test",
        source="LeetCodeDataset",
        license_="Apache-2.0",
        right=[row["completion"]],
        entry_point=entry_point.rpartition(".")[2],
    )


def _classeval(row: Mapping[str, Any]) -> DatasetEntry:
    return labelled_entry(
        f"ClassEval/{row['task_id']}",
        f"Complete this class:\n\n{row['skeleton']}\n",
        {"kind": "unittest", "source": row["test"], "entry_point": row["class_name"]},
        "test",
        source="ClassEval",
        license_="MIT",
        right=[row["solution_code"]],
        entry_point=row["class_name"],
    )


READERS = {
    "bigcodebench": _bigcodebench,
    "bigcodebench-instruct": _bigcodebench_instruct,
    "kodcode": _kodcode,
    "leetcode": _leetcode,
    "classeval": _classeval,
}
