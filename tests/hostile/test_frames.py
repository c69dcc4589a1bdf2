"""Data frames and their parts cross the wall as values: pandas' own `equals` holds, and no program's."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.judge import judge
from sandbox.languages import python_packages
from sandbox.sandbox import Sandbox
from sandbox.types import AssertSuite, Limits, Options, Program, Report, Stop, UnittestSuite

pytestmark = pytest.mark.skipif(
    not any(Path(place, "pandas").is_dir() for place in python_packages()),
    reason="needs pandas where programs find it (make toolchains)",
)

FRAMES = {
    "mixed columns": "pd.DataFrame({'a': [1, 2, 3], 'b': ['x', None, 'z'], 'c': [1.5, float('nan'), 2.0]})",
    "a series": "pd.Series([1, 2], index=['p', 'q'], name='n')",
    "levels": "pd.DataFrame({'g': [1, 1, 2], 'h': list('aba'), 'v': [1, 2, 3]}).groupby(['g', 'h']).sum()",
    "columns of levels": "pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([('a', 'x'), ('a', 'y')]))",
    "categories": "pd.Series(['a', 'b', 'a'], dtype='category')",
    "ordered categories": "pd.Series(pd.Categorical(['lo', 'hi'], categories=['lo', 'hi'], ordered=True))",
    "times with a zone": "pd.DataFrame({'t': pd.date_range('2024-01-01', periods=2, tz='Europe/Berlin')})",
    "times": "pd.DataFrame({'t': pd.date_range('2024-01-01', periods=2), 'd': pd.to_timedelta([1, 2], unit='h')})",
    "an index of dates": "pd.date_range('2024-01-01', periods=3)",
    "nullable numbers": "pd.Series([1, None], dtype='Int64')",
    "nullable truths": "pd.Series([True, None], dtype='boolean')",
    "objects": "pd.DataFrame({'a': [[1], {'x': 2}, None]})",
    "nothing": "pd.DataFrame()",
    "columns twice": "pd.DataFrame([[1, 2]], columns=['a', 'a'])",
    "rows left": "pd.DataFrame({'a': [3, 1, 2]}).sort_values('a').head(2)",
    "a range": "pd.RangeIndex(2, 10, 3, name='r')",
}
SCALARS = {
    "a time": "pd.Timestamp('2024-02-03 04:05')",
    "a time with a zone": "pd.Timestamp('2024-02-03 04:05', tz='UTC')",
    "a duration": "pd.Timedelta(hours=3)",
}
HEAD = "import numpy as np\nimport pandas as pd\n"
LIAR = """
class Frame(pd.DataFrame):
    def equals(self, other): return True
class Column(pd.Series):
    def equals(self, other): return True
def f(): return Frame() if {frame} else Column()
"""


def run(sandbox: Sandbox, source: str, *asserts: str, **options: bool) -> Report:
    suite = AssertSuite(asserts, HEAD, "f")
    return judge(Program("python", HEAD + source), suite, Limits(cpu_s=10), Stop(), sandbox, Options(**options))


def passed(report: Report, names: dict[str, str]) -> list[str]:
    return [name for name, test in zip(names, report.tests, strict=True) if test.verdict == "passed"]


def test_a_frame_that_crosses_equals_the_original(sandbox: Sandbox) -> None:
    source = "MADE = {" + ", ".join(f"{name!r}: lambda: {made}" for name, made in FRAMES.items()) + "}\n"
    source += "def f(name): return MADE[name]()\ndef back(name, x): return x.equals(MADE[name]())"
    there = [f"x, y = f({name!r}), {made}\nassert type(x) is type(y) and x.equals(y)" for name, made in FRAMES.items()]
    report = run(sandbox, source, *there)
    assert (passed(report, FRAMES), report.judge) == ([*FRAMES], "split"), report
    back = [f"assert back({name!r}, {made}) is True and f({name!r}) is not None" for name, made in FRAMES.items()]
    assert passed(run(sandbox, source, *back), FRAMES) == [*FRAMES]


def test_a_time_that_crosses_equals_the_original(sandbox: Sandbox) -> None:
    made = ", ".join(f"{name!r}: {text}" for name, text in SCALARS.items())
    source = f"MADE = {{{made}}}\ndef f(n): return MADE[n]"
    tests = [f"x = {made}\nassert f({name!r}) == x and type(f({name!r})) is type(x)" for name, made in SCALARS.items()]
    assert passed(run(sandbox, source, *tests), SCALARS) == [*SCALARS]


@pytest.mark.parametrize("frame", [True, False])
def test_no_class_of_the_programs_says_what_equals_a_frame(sandbox: Sandbox, frame: bool) -> None:
    made = {name: text for name, text in FRAMES.items() if name != "nothing"}  # which an empty frame equals
    tests = [f"x, y = f(), {text}\nassert x.equals(y)" for text in made.values()]
    assert passed(run(sandbox, LIAR.format(frame=frame), *tests), made) == []


def test_a_task_on_frames_is_judged_right(sandbox: Sandbox) -> None:
    suite = UnittestSuite(
        "import unittest\nimport pandas as pd\nclass TestCases(unittest.TestCase):\n"
        "    def setUp(self):\n        self.df = pd.DataFrame({'k': ['a', 'b', 'a'], 'v': [1, 2, 3]})\n"
        "    def test_sum(self):\n        got = task_func(self.df)\n"
        "        pd.testing.assert_frame_equal(got, pd.DataFrame({'k': ['a', 'b'], 'v': [4, 2]}))\n"
        "    def test_columns(self):\n        self.assertListEqual(list(task_func(self.df).columns), ['k', 'v'])\n"
        "        self.assertEqual(task_func(self.df).shape, (2, 2))\n"
        "        self.assertIsInstance(task_func(self.df), pd.DataFrame)\n"
    )
    right = "def task_func(df):\n    return df.groupby('k', as_index=False)['v'].sum()"
    wrong = "def task_func(df):\n    return df.groupby('k', as_index=False)['v'].max()"
    reports = [judge(Program("python", HEAD + one), suite, Limits(cpu_s=10), Stop(), sandbox) for one in (right, wrong)]
    assert [report.verdict for report in reports] == ["passed", "wrong_answer"], reports
    assert [report.passed for report in reports] == [2, 1]
