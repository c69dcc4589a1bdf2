"""`plaudit-train sheet RUN`: a sample of a run's tests to check by hand, and how many of them are right.

    plaudit-train sheet runs/synth --tests 200            writes sheet.html and sheet.csv in the run folder
    plaudit-train sheet runs/synth --read sheet.csv       the share of right tests, with its interval

- Every test of the run has the same chance to be drawn, by seed, so the share that is right estimates that of the run.
- `sheet.html` needs no network. Its verdicts are kept in the browser, and saved as a CSV file by a button.
- `sheet.csv` is the same for a spreadsheet: write `right`, `wrong` or `unclear` into its column `verdict`.
- A verdict belongs to a test by its name and its text. A sheet of other tests, or of tests that have changed, is an
  error.
- The share is over the tests with a clear verdict, with Wilson's 95 % interval; `at_least` counts the unclear as wrong.
"""

from __future__ import annotations

import argparse
import csv
import html
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plaudit.errors import Invalid, UsageError
from training.pipeline.digests import content_key
from training.pipeline.files import write_text
from training.pipeline.metrics import wilson
from training.pipeline.records import Problem, read_problems

COLUMNS = ("number", "id", "key", "source", "verdict", "note", "test", "problem", "reference")
VERDICTS = ("right", "wrong", "unclear")


@dataclass(frozen=True, slots=True)
class SheetEntry:
    """A drawn test; `name` is its problem and its place in the suite, `key` names its text."""

    name: str
    problem: Problem
    test: str

    @property
    def key(self) -> str:
        return content_key(self.problem.prompt, self.problem.test_setup, self.test)


def sheet_command(arguments: Sequence[str]) -> None:
    """Run the command. Raises `UsageError` for a run without tests, `Invalid` for a sheet that cannot be read."""
    parser = argparse.ArgumentParser(
        prog="plaudit-train sheet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run folder with problems.jsonl")
    parser.add_argument("--tests", type=int, default=200, help="tests to draw")
    parser.add_argument("--seed", type=int, default=1, help="of the draw")
    parser.add_argument("--read", type=Path, help="a sheet with verdicts, to be counted")
    options = parser.parse_args(arguments)
    path = options.run / "problems.jsonl"
    if not path.is_file():
        raise UsageError(f"{options.run} has no problems.jsonl: run plaudit-train synthesize or collect first")
    problems = read_problems(path)
    if options.read is not None:
        print(json.dumps(precision(options.read, problems)))
        return
    if options.tests < 1:
        raise UsageError(f"--tests must be 1 or more, and is {options.tests}")
    entries = drawn(problems, options.tests, options.seed)
    if not entries:
        raise UsageError(f"{path}: no problem has a test")
    with (options.run / "sheet.csv").open("w", encoding="utf-8", newline="") as out:
        rows = csv.DictWriter(out, COLUMNS)
        rows.writeheader()
        rows.writerows(_row(number, entry) for number, entry in enumerate(entries, start=1))
    write_text(options.run / "sheet.html", page_of(entries, options.run.absolute().name))
    print(json.dumps({"tests": len(entries), "of": sum(len(p.tests) for p in problems.values()), "file": "sheet.html"}))


def drawn(problems: Mapping[str, Problem], count: int, seed: int) -> list[SheetEntry]:
    """Up to `count` tests, each with the same chance, in the problems' order."""
    sizes = [(problem, len(problem.tests)) for problem in problems.values()]
    total = sum(size for _, size in sizes)
    places = sorted(random.Random(seed).sample(range(total), min(count, total)))
    entries, at, begin = [], 0, 0
    for problem, size in sizes:
        while at < len(places) and places[at] < begin + size:
            place = places[at] - begin
            entries.append(SheetEntry(f"{problem.task_id}#{place}", problem, problem.tests[place]))
            at += 1
        begin += size
    return entries


def precision(path: Path, problems: Mapping[str, Problem]) -> dict[str, object]:
    """How many of a sheet's tests are right, all together and by source. Raises `Invalid`, naming the row."""
    counts: Counter[str] = Counter()
    by_source: dict[str, Counter[str]] = {}
    for verdict, source in _verdicts(path, problems):
        counts[verdict or "empty"] += 1
        if verdict:
            by_source.setdefault(source, Counter())[verdict] += 1
    if not counts["right"] + counts["wrong"]:
        raise Invalid(f"{path}: no test has the verdict right or wrong yet")
    summary = {verdict: counts[verdict] for verdict in (*VERDICTS, "empty")}
    sources = {source: _share(found) for source, found in sorted(by_source.items()) if found["right"] + found["wrong"]}
    return {**summary, **_share(counts), "sources": sources}


def _share(counts: Counter[str]) -> dict[str, object]:
    right, clear, judged = counts["right"], counts["right"] + counts["wrong"], sum(counts[v] for v in VERDICTS)
    low, high = wilson(right, clear)
    return {
        "precision": round(right / clear, 4),
        "interval": [round(low, 4), round(high, 4)],
        "at_least": round(wilson(right, judged)[0], 4),
    }


def _verdicts(path: Path, problems: Mapping[str, Problem]) -> Iterator[tuple[str, str]]:
    """(verdict, source of the problem) of every row; "" where there is no verdict."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"--read: cannot read {path}: {error.strerror}") from error
    rows = csv.DictReader(text.splitlines(keepends=True))
    if missing := [name for name in ("id", "key", "verdict") if name not in (rows.fieldnames or ())]:
        raise Invalid(f"{path}: no column {missing[0]}: it is not a sheet of plaudit-train sheet")
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):  # as a spreadsheet counts them, the head being the first
        where = f"{path}, row {number}: {row['id']}"
        task_id, _, place = row["id"].rpartition("#")
        problem = problems.get(task_id)
        if problem is None or not place.isdigit() or int(place) >= len(problem.tests):
            raise Invalid(f"{where}: the run has no such test")
        if SheetEntry(row["id"], problem, problem.tests[int(place)]).key != row["key"]:
            raise Invalid(f"{where}: the test or its problem has changed since the sheet was made; make a new one")
        if row["id"] in seen:
            raise Invalid(f"{where}: the sheet has this test twice")
        seen.add(row["id"])
        verdict = (row["verdict"] or "").strip().lower()
        if verdict and verdict not in VERDICTS:
            raise Invalid(f"{where}: verdict {row['verdict']!r} is not one of {', '.join(VERDICTS)}")
        yield verdict, problem.source


def _row(number: int, entry: SheetEntry) -> dict[str, object]:
    problem = entry.problem
    return {
        "number": number,
        "id": entry.name,
        "key": entry.key,
        "source": problem.source,
        "verdict": "",
        "note": "",
        "test": entry.test,
        "problem": problem.prompt,
        "reference": problem.canonical or "",
    }


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Tests to check: {name}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}}
pre{{overflow:auto;background:#f4f4f4;padding:.6rem;white-space:pre-wrap}}
article{{border-top:1px solid #bbb;padding:.6rem 0}}fieldset{{border:0;padding:0}}label{{margin-right:1rem}}
header{{position:sticky;top:0;background:#fff;padding:.4rem 0}}input[type=text]{{width:100%}}</style>
<h1>Tests to check: {name}</h1>
<p>Is the test right for its problem? A test is right if every right program passes it. The reference passes it, and may
be wrong.</p>
<header><button type="button" id="save">Save verdicts as CSV</button> <output id="count"></output></header>
{articles}
<script>
const key = {storage};
const kept = JSON.parse(localStorage.getItem(key) || "{{}}");
const articles = [...document.querySelectorAll("article")];
const count = () => document.getElementById("count").value =
  articles.filter(a => (kept[a.dataset.id] || {{}}).verdict).length + " of " + articles.length;
for (const a of articles) {{
  const mine = kept[a.dataset.id] ||= {{}};
  for (const input of a.querySelectorAll("input")) {{
    if (input.type === "radio") input.checked = input.value === mine.verdict; else input.value = mine.note || "";
    input.addEventListener("input", () => {{
      mine[input.type === "radio" ? "verdict" : "note"] = input.value;
      localStorage.setItem(key, JSON.stringify(kept));
      count();
    }});
  }}
}}
count();
document.getElementById("save").addEventListener("click", () => {{
  const cell = text => '"' + String(text).replaceAll('"', '""') + '"';
  const lines = articles.map(a => [a.dataset.id, a.dataset.key, kept[a.dataset.id].verdict || "",
    kept[a.dataset.id].note || ""].map(cell).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([["id,key,verdict,note", ...lines].join("\\n") + "\\n"]));
  link.download = "verdicts.csv";
  link.click();
}});
</script></html>
"""


def page_of(entries: Sequence[SheetEntry], name: str) -> str:
    """One page that needs nothing else."""
    storage = json.dumps(f"plaudit-sheet-{content_key([entry.key for entry in entries])}")
    articles = "\n".join(_article(number, entry) for number, entry in enumerate(entries, start=1))
    return PAGE.format(name=html.escape(name), articles=articles, storage=storage)


def _article(number: int, entry: SheetEntry) -> str:
    problem = entry.problem
    choices = "".join(
        f'<label><input type="radio" name="v{number}" value="{verdict}"> {verdict}</label>' for verdict in VERDICTS
    )
    setup = f"<pre>{html.escape(problem.test_setup)}</pre>" if problem.test_setup else ""
    reference = (
        f"<details><summary>reference</summary><pre>{html.escape(problem.canonical)}</pre></details>"
        if problem.canonical
        else ""
    )
    return (
        f'<article data-id="{html.escape(entry.name)}" data-key="{entry.key}"><h2>{number}. '
        f"{html.escape(entry.name)}</h2><pre>{html.escape(problem.prompt)}</pre>{setup}"
        f"<pre><b>{html.escape(entry.test)}</b></pre>{reference}<fieldset>{choices}</fieldset>"
        f'<input type="text" placeholder="note" aria-label="note"></article>'
    )
