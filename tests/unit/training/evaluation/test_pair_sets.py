"""Pair sets: rows of the published schemas, difficulty, languages, code in prose, and what a bad file is told."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import UsageError
from training.evaluation import pair_sets
from training.evaluation.pair_sets import code_text, pair_set_report, read_pairs
from training.evaluation.scorers import scorer_of
from training.pipeline.config import EvaluateConfig
from training.pipeline.files import write_jsonl

FENCE = "```"
BETTER = "def add(a, b):\n    return a + b\n"
WORSE = "def add(a, b):\n    return a - b\n"


def styled(code: str, tag: str = "python") -> list[str]:
    concise = f"{FENCE}{tag}\n{code}{FENCE}"
    markdown = f"## Answer\n\n{concise}\n\n- **fast**, and\n- **short**, with nothing to import"
    return [concise, f"This adds them.\n\n{concise}\n\nIt runs in O(1).", markdown]


def rm_bench_row(number: int, domain: str = "code") -> dict[str, Any]:
    row = {"id": number, "prompt": f"Add two numbers ({number}).", "domain": domain}
    return row | {"chosen": styled(BETTER), "rejected": styled(WORSE)}


def reward_bench_row(number: int, subset: str, tag: str) -> dict[str, Any]:
    return {
        "prompt": "Write add.",
        "chosen": styled(BETTER, tag)[0],
        "chosen_model": "human",
        "rejected": styled(WORSE, tag)[0],
        "rejected_model": "bug",
        "subset": subset,
        "id": number,
    }


class Judge:
    """A model that prefers one text to another by a function of the text."""

    def __init__(self, key: Any) -> None:
        self.key = key

    def score_answers(self, groups: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        return [[float(self.key(text)) for text in answers] for _, answers in groups]


def accuracies(entry: str, key: Any, **options: Any) -> dict[str, float]:
    report = pair_set_report(Judge(key), entry, EvaluateConfig(resamples=50), 1, **options)  # type: ignore[arg-type]
    return {part["slice"]: part["value"] for part in report["slices"]}


def test_rm_bench_gives_nine_pairs_of_three_difficulties(tmp_path: Path) -> None:
    path = tmp_path / "total_dataset.json"
    path.write_text(json.dumps([rm_bench_row(1), rm_bench_row(2, "math"), rm_bench_row(3, "code-python")]))
    pairs = read_pairs(f"rm-bench={path}")
    assert len(pairs) == 18
    assert {pair.group for pair in pairs} == {"1", "3"}
    by_difficulty = {name: [p for p in pairs if p.difficulty == name] for name in ("easy", "normal", "hard")}
    assert {name: len(members) for name, members in by_difficulty.items()} == {"easy": 6, "normal": 6, "hard": 6}
    assert all(len(pair.rejected) > len(pair.chosen) for pair in by_difficulty["hard"])
    assert {pair.language for pair in pairs} == {"python"}


def test_a_model_that_looks_at_style_fails_on_hard_pairs_and_not_on_code(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rm.jsonl", [rm_bench_row(number) for number in range(5)])
    entry = f"rm-bench={tmp_path / 'rm.jsonl'}"
    by_length = accuracies(entry, len, whole=True)
    assert (by_length["easy"], by_length["normal"], by_length["hard"]) == (1.0, 0.5, 0.0)
    assert set(accuracies(entry, len).values()) == {0.5}
    assert set(accuracies(entry, lambda text: "+" in text).values()) == {1.0}


def test_reward_bench_rows_of_code_have_their_language(tmp_path: Path) -> None:
    rows = [
        reward_bench_row(at, subset, tag)
        for at, (subset, tag) in enumerate(
            [("hep-python", "python"), ("hep-js", "js"), ("hep-cpp", "cpp"), ("hep-go", "go"), ("alpacaeval-easy", "")]
        )
    ]
    with gzip.open(tmp_path / "rb.jsonl.gz", "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)
    pairs = read_pairs(f"reward-bench={tmp_path / 'rb.jsonl.gz'}")
    assert [pair.language for pair in pairs] == ["python", "javascript", "cpp", "go"]
    slices = accuracies(f"reward-bench={tmp_path / 'rb.jsonl.gz'}", lambda text: "+" in text)
    assert slices == dict.fromkeys(["all", "python", "javascript", "cpp", "go"], 1.0)


def test_plain_pairs_may_say_their_difficulty_and_language(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "chosen": "a+b", "rejected": "a-b", "difficulty": "subtle", "language": "c++"},
        {"prompt": "q", "chosen": styled(BETTER, "rust")[1], "rejected": "I cannot."},
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    first, second = read_pairs(f"pairs={tmp_path / 'pairs.jsonl'}")
    assert (first.difficulty, first.language, first.group) == ("subtle", "cpp", "p")
    assert (second.difficulty, second.language) == ("", "rust")


def test_sides_may_have_several_answers_or_be_messages(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Write add."}]
    rows = [
        {**reward_bench_row(1, "hep-go", "go"), "chosen": ["a"], "rejected": ["b", "c", "d"]},
        {
            **reward_bench_row(2, "hep-rust", "rust"),
            "prompt": said,
            "chosen": [*said, {"role": "assistant", "content": "yes"}],
            "rejected": [*said, {"role": "assistant", "content": "no"}],
        },
    ]
    write_jsonl(tmp_path / "rb.jsonl", rows)
    pairs = read_pairs(f"reward-bench={tmp_path / 'rb.jsonl'}")
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("a", "b"), ("a", "c"), ("a", "d"), ("yes", "no")]
    assert (pairs[-1].prompt, pairs[-1].language) == ("Write add.", "rust")


def test_a_checkpoint_is_measured_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "rm.jsonl", [rm_bench_row(1), rm_bench_row(2)])
    monkeypatch.setattr(pair_sets, "scorer_of", lambda settings: Judge(len))
    monkeypatch.setattr("sys.argv", ["pair_sets", "some/model", f"rm-bench={tmp_path / 'rm.jsonl'}", "--whole"])
    assert pair_sets.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:3] for line in lines] == [
        ["all", "0.500"],
        ["easy", "1.000"],
        ["hard", "0.000"],
        ["normal", "0.500"],
    ]


def test_a_model_must_be_named() -> None:
    with pytest.raises(UsageError, match="name a model"):
        scorer_of(EvaluateConfig())


def test_the_code_of_an_answer_is_what_counts() -> None:
    for answer in styled(BETTER):
        assert code_text(answer, "python").strip() == BETTER.strip()
    assert code_text("just text", "python") == "just text"


@pytest.mark.parametrize(
    ("entry", "row", "said"),
    [
        ("rm-bench", {"id": 1, "prompt": "p", "domain": "code", "chosen": ["a"], "rejected": ["b"]}, "3 answers"),
        ("rm-bench", {"prompt": "p"}, "row 1"),
        ("reward-bench", {"prompt": "p", "chosen": "a", "rejected": "b", "subset": "chat", "id": 1}, "no pair of code"),
        ("pairs", {"prompt": "p", "chosen": "a"}, "rejected"),
        ("pairs", {"prompt": "p", "chosen": 3, "rejected": "b"}, "a list of texts"),
        ("nothing", {}, "SET=FILE"),
    ],
)
def test_a_set_that_cannot_be_read_is_told_where(tmp_path: Path, entry: str, row: dict[str, Any], said: str) -> None:
    write_jsonl(tmp_path / "set.jsonl", [row])
    with pytest.raises(UsageError, match=said):
        read_pairs(f"{entry}={tmp_path / 'set.jsonl'}")
