"""The data side as it runs: stages as processes, a server and a sandbox that are real, and SIGKILL in the middle."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.capabilities import HostCapabilities
from support.hub_rows import SOLVED
from support.openai_server import OpenAIServer, causal_model
from support.stack import Stack, free_port, wait_for
from training.data.adapters import entries
from training.data.judge_local import judge_locally
from training.data.judge_task import task_of
from training.data.judging import judge_all
from training.data.programs import program_of
from training.pipeline.cli import main
from training.pipeline.config import HubConfig, Recipe
from training.pipeline.files import read_jsonl, write_jsonl
from training.pipeline.records import Problem, as_row, read_problems, read_programs
from training.pipeline.run import Run
from training.synthesis.filters import ProblemDraft, SynthesisLog, filter_tests

ROOT = Path(__file__).parents[2]
NOUNS = "apple river stone cloud lemon tiger piano candle".split()  # noqa: SIM905
needs_walls = pytest.mark.skipif(HostCapabilities.probe().level != "strong", reason="programs cannot run here")


def toy(at: int) -> Problem:
    noun, k = NOUNS[at], at + 2
    return Problem(
        task_id=f"T/{at}",
        base_id=f"T/{at}",
        prompt=f'def {noun}(x):\n    """Multiply by {k}."""\n',
        entry_point=noun,
        canonical=f"def {noun}(x):\n    return x * {k}\n",
        test_setup="",
        tests=tuple(f"assert {noun}({n}) == {n * k}" for n in (1, 5, 7)),
        source="toys",
        license="MIT",
    )


PROBLEMS = [toy(at) for at in range(len(NOUNS))]
BODIES = ["return x * {k}", "return {k}", "return x + x", "return x / 0", "y = x * {k}\n    return y"]


NUM_PROGRAMS = len(PROBLEMS) * len(BODIES) + 2  # with those that `to_verify` adds


def write_recipe(folder: Path, stages: list[str], *lines: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text("\n".join([f"stages = {json.dumps(stages)}", *lines]) + "\n")
    return path


def stage(name: str, recipe: Path, run: Path, *flags: str) -> subprocess.Popen[bytes]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "training.pipeline.cli", name, str(recipe), "--run", str(run), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
    )


def killed_after(lines: int, journal: Path, process: subprocess.Popen[bytes]) -> None:
    """SIGKILL once the journal has this many lines."""
    wait_for(lambda: journal.is_file() and journal.read_bytes().count(b"\n") >= lines, 60, "the journal to grow")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def finished(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()[-3000:]
    summary: dict[str, Any] = json.loads(out)
    return summary


def files_of(folder: Path, *patterns: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for one in patterns for path in sorted(folder.glob(one))}


def without_times(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name not in ("wall_s", "cpu_s")}


# --- sample ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_model(tmp_path_factory.mktemp("causal"))


def sampling(folder: Path, url: str, shards: int) -> Path:
    return write_recipe(
        folder,
        ["sample"],
        "[sample]",
        "n = 3",
        f"shards = {shards}",
        "[sampler]",
        f'url = "{url}"',
        'model = "tiny"',
        "chat = false",
        "max_tokens = 6",
        "concurrency = 2",
        "prompt_price = 1000.0",
    )


def test_sampling_killed_in_the_middle_ends_as_if_it_had_not_been(tmp_path: Path, model: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        write_jsonl(Run(folder, quiet=True).path("problems.jsonl"), map(as_row, PROBLEMS))
    with OpenAIServer(model) as server:
        recipe = sampling(tmp_path, server.url, 2)
        assert main(["sample", str(recipe), "--run", str(whole)]) == 0
        told = json.loads((whole / "stages" / "sample.json").read_text())["summary"]
        asked = len(server.requests)
        journal = cut / "samples" / "00000-of-00002.replies.jsonl"
        server.least_s = 0.4  # time to die in, on the fastest host
        killed_after(1, journal, stage("sample", recipe, cut))
        server.least_s = 0.0
        summary = finished(stage("sample", recipe, cut))
        assert asked == len(PROBLEMS)
        assert len(server.requests) < 2 * asked + 4  # what was on record was not asked again, in flight at most 2
    assert files_of(whole, "samples/*[0-9].jsonl") == files_of(cut, "samples/*[0-9].jsonl")
    assert {name: summary[name] for name in told} == told
    assert told["candidates"] == 3 * len(PROBLEMS)
    assert told["cost"] > 0
    programs = [p for file in sorted((whole / "samples").glob("*of-00002.jsonl")) for p in read_programs(file)]
    assert {p.task_id for p in programs} == {p.task_id for p in PROBLEMS}
    assert all(p.solution.startswith("def ") and p.iid_copies == p.copies for p in programs)


def test_shards_done_one_by_one_make_the_same_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(Run(tmp_path / "run", quiet=True).path("problems.jsonl"), map(as_row, PROBLEMS))
    with OpenAIServer(answer=lambda body: ["    return x\n"] * body["n"]) as server:
        arguments = ["sample", str(sampling(tmp_path, server.url, 3)), "--run", str(tmp_path / "run")]
        for number in (2, 0):
            assert main([*arguments, "--shard", f"{number}/3"]) == 0
            assert json.loads(capsys.readouterr().out)["complete"] is False
        assert not (tmp_path / "run" / "stages" / "sample.json").exists()
        assert main(["status", str(tmp_path / "run")]) == 0
        assert "shard 0/3 is done" in capsys.readouterr().out
        assert main([*arguments, "--shard", "3/3"]) == 2
        assert main(arguments) == 0
        assert len(server.requests) == len(PROBLEMS)
    assert json.loads(capsys.readouterr().out)["distinct"] == len(PROBLEMS)


def test_chat_answers_become_programs_under_the_prompts_imports(tmp_path: Path) -> None:
    prompt = "from typing import List\n\n\ndef f(xs: List[int]):\n    ...\n"
    problem = Problem("T/l", "T/l", prompt, "f", None, "", ("assert f",), "toys", "MIT")
    write_jsonl(Run(tmp_path / "run", quiet=True).path("problems.jsonl"), [as_row(problem)])
    answers = ["<think>hm</think>```python\ndef f(xs: List[int]):\n    return xs\n```", "I do not know."]
    with OpenAIServer(answer=lambda body: answers) as server:
        recipe = write_recipe(tmp_path, ["sample"], "[sample]", "n = 2", "[sampler]", f'url = "{server.url}"')
        assert main(["sample", str(recipe), "--run", str(tmp_path / "run")]) == 0
    good, none = read_programs(tmp_path / "run" / "samples" / "00000-of-00001.jsonl")
    assert good.solution == "from typing import List\ndef f(xs: List[int]):\n    return xs\n"
    assert good.completion.startswith("```python")
    assert none.solution == ""


# --- verify ----------------------------------------------------------------------------------------------------------


def to_verify(folder: Path) -> Run:
    """A run folder after `sample`: right and wrong programs, one without code, and one that takes its time."""
    run = Run(folder, quiet=True)
    write_jsonl(run.path("problems.jsonl"), map(as_row, PROBLEMS))
    programs = [
        program_of(p, p.prompt + "    " + body.format(k=at + 2) + "\n", "sample", "m", "")
        for at, p in enumerate(PROBLEMS)
        for body in BODIES
    ]
    programs.append(program_of(PROBLEMS[0], "", "sample", "m", "", completion="I do not know."))
    slow = f"import time\n{PROBLEMS[2].canonical}".replace("    return", "    time.sleep(0.3)\n    return")
    programs.append(program_of(PROBLEMS[2], slow, "sample", "m", ""))  # time to die in, on the fastest host
    write_jsonl(run.path("samples/00000-of-00001.jsonl"), map(as_row, programs))
    return run


def verifying(folder: Path, *lines: str) -> Path:
    folder.mkdir(exist_ok=True)
    return write_recipe(folder, ["verify"], "[verify]", "cpu_s = 2.0", *lines)


def sampled_recipe(path: Path) -> Path:
    path.write_text(path.read_text().replace('["verify"]', '["sample", "verify"]'))
    return path


def verify_here(recipe: Path, run: Run) -> int:
    run.finish("sample", "by-hand", {}, 0.0, 0.0)
    return main(["verify", str(sampled_recipe(recipe)), "--run", str(run.folder)])


RATES = [1.0, 1 / 3, 0.0, 0.0, 1.0]  # of BODIES


@needs_walls
def test_verifying_killed_in_the_middle_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, cut = to_verify(tmp_path / "whole"), to_verify(tmp_path / "cut")
    recipe = verifying(tmp_path)
    assert verify_here(recipe, whole) == 0
    cut.finish("sample", "by-hand", {}, 0.0, 0.0)
    killed_after(5, cut.path("verify/00000-of-00001.jsonl"), stage("verify", recipe, cut.folder))
    before = cut.path("verify/00000-of-00001.jsonl").read_bytes().count(b"\n")
    summary = finished(stage("verify", recipe, cut.folder))
    assert before < len(PROBLEMS) * len(BODIES)
    assert files_of(whole.folder, "verified.jsonl") == files_of(cut.folder, "verified.jsonl")
    assert summary["judged"] == NUM_PROGRAMS
    found = {p.program_id: p.pass_rate for p in read_programs(whole.path("verified.jsonl"))}
    for at, p in enumerate(PROBLEMS[1:], start=1):
        rates = [
            found[program_of(p, p.prompt + "    " + body.format(k=at + 2) + "\n", "sample", "", "").program_id]
            for body in BODIES
        ]
        assert rates == pytest.approx(RATES)


def test_service_judges_as_the_sandbox_and_a_dead_one_makes_no_labels(
    tmp_path: Path, stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = to_verify(tmp_path / "here"), to_verify(tmp_path / "there")
    dead = verifying(tmp_path / "dead", f'service = "http://127.0.0.1:{free_port()}"', "timeout_s = 1.0")
    assert verify_here(dead, there) == 3
    assert "verify.service: nothing answers" in capsys.readouterr().err
    assert not there.path("verified.jsonl").exists()
    assert not there.path("verify/00000-of-00001.jsonl").exists()
    assert there.record("verify") is None

    alive = verifying(tmp_path / "alive", f'service = "{stack.url}"', "group = 3")
    assert verify_here(alive, there) == 0
    if HostCapabilities.probe().level == "strong":
        assert verify_here(verifying(tmp_path), here) == 0
        assert files_of(here.folder, "verified.jsonl") == files_of(there.folder, "verified.jsonl")
    assert len(read_programs(there.path("verified.jsonl"))) == NUM_PROGRAMS


class Wire:
    """A TCP line to the service that is cut after so many requests: whoever comes later meets a closed door."""

    def __init__(self, url: str, requests: int) -> None:
        wire = self
        self.left = requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                wire.left -= 1
                if wire.left < 0:
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers["Content-Length"]))
                names = ("Content-Type", "Idempotency-Key", "X-Deadline-Ms")
                headers = {name: self.headers[name] for name in names}
                answer = httpx.post(url + self.path, content=body, headers=headers, timeout=60)
                self.send_response(answer.status_code)
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *arguments: object) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Wire:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_a_service_that_dies_in_the_middle_costs_nothing_that_was_judged(tmp_path: Path, stack: Stack) -> None:
    run = to_verify(tmp_path / "run")
    with Wire(stack.url, 2) as wire:
        recipe = verifying(tmp_path, f'service = "{wire.url}"', "timeout_s = 5.0", "in_flight = 1", "group = 8")
        assert verify_here(recipe, run) == 1
        assert not run.path("verified.jsonl").exists()
        judged = run.path("verify/00000-of-00001.jsonl").read_bytes().count(b"\n")
        assert judged == 11  # the two groups that were answered: six programs and five
        wire.left = 99
        assert verify_here(recipe, run) == 0
        assert wire.left == 99 - (len(PROBLEMS) - 2)  # a group a problem
    assert len(read_programs(run.path("verified.jsonl"))) == NUM_PROGRAMS


def test_what_the_service_could_not_judge_is_no_label_and_is_asked_again(tmp_path: Path, stack: Stack) -> None:
    run = to_verify(tmp_path / "run")
    odd = dataclasses.replace(PROBLEMS[0], language="klingon")
    write_jsonl(run.path("problems.jsonl"), map(as_row, [odd, *PROBLEMS[1:]]))
    recipe = verifying(tmp_path, f'service = "{stack.url}"')
    assert verify_here(recipe, run) == 1  # six of forty-one
    assert not run.path("verified.jsonl").exists()
    lenient = verifying(tmp_path, f'service = "{stack.url}"', "max_infra_errors = 0.5")
    assert verify_here(lenient, run) == 0
    assert {p.task_id for p in read_programs(run.path("verified.jsonl"))} == {p.task_id for p in PROBLEMS[1:]}
    write_jsonl(run.path("problems.jsonl"), map(as_row, PROBLEMS))
    (run.folder / "stages" / "verify.json").unlink()
    assert verify_here(recipe, run) == 0
    assert len(read_programs(run.path("verified.jsonl"))) == NUM_PROGRAMS


@needs_walls
def test_every_data_sets_tests_tell_a_right_program_from_a_wrong_one(tmp_path: Path) -> None:
    tasks = []
    for number, (adapter, hub_row, *programs) in enumerate(SOLVED):
        path = tmp_path / f"{number}.jsonl"
        write_jsonl(path, [hub_row])
        (entry,) = entries(HubConfig(adapter=adapter, path=str(path)))
        tasks += [task_of(entry.problem, program_of(entry.problem, text, "sample", "", ""), 5.0) for text in programs]
    results = judge_all(tasks, Run(tmp_path / "run", quiet=True), partial(judge_locally, processes=1))
    rates = [results[task.key]["pass_rate"] for task in tasks]
    assert rates[::2] == [1.0] * len(SOLVED), [results[task.key] for task in tasks]
    assert max(rates[1::2]) < 1.0


@needs_walls
@pytest.mark.parametrize("processes", [1, 2])
def test_tests_that_no_judge_can_use_are_counted_and_end_nothing(tmp_path: Path, processes: int) -> None:
    broken = dataclasses.replace(toy(1), tests=("assert river(2) ==",))
    tasks = [
        task_of(problem, program_of(problem, problem.canonical or "", "sample", "", ""), 5.0)
        for problem in (toy(0), broken)
    ]
    run = Run(tmp_path, quiet=True)
    results = judge_all(tasks, run, partial(judge_locally, processes=processes))
    assert [results[task.key]["status"] for task in tasks] == ["ok", "invalid"]
    assert "line 1" in results[tasks[1].key]["detail"] or "syntax" in results[tasks[1].key]["detail"].lower()


@needs_walls
def test_a_test_of_a_sets_order_is_flaky(tmp_path: Path) -> None:
    """The order of a set of texts depends on the hash seed, which is the same in every ordinary run."""
    letters = list("abcdefgh")
    command = [sys.executable, "-c", f"print(''.join(set({letters})), end='')"]
    order = subprocess.run(command, env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True).stdout
    tests = [f"assert join({letters}) == {order!r}", f"assert sorted(join({letters})) == {letters}"]
    draft = ProblemDraft("t", "s", "MIT", "Join.", tests, "join", "def join(xs):\n    return ''.join(set(xs))\n")
    log = SynthesisLog()
    (kept,) = filter_tests(Recipe(), Run(tmp_path, quiet=True), [draft], log)
    assert kept.tests == tests[1:]
    assert (log.counts["tests_failed_by_oracle"], log.counts["tests_flaky"]) == (0, 1)


# --- synthesize ------------------------------------------------------------------------------------------------------


def written_answer(body: dict[str, Any]) -> list[str]:
    """A writer and an oracle by rule: they know the eight toys, and make the mistakes that models make."""
    text = body["messages"][-1]["content"]
    if "Solve the task below" in text:
        name, k = re.search(r"`(\w+)\(x\)`, x times (\d+)", text).groups()  # type: ignore[union-attr]
        bodies = [f"return x * {k}", "return -1", f"return {k}", f"return x * {k} if x else None"]
        return [f"```python\ndef {name}(x):\n    {body}\n```" for body in bodies]
    if "further tests" in text:
        name, k = re.search(r"`(\w+)\(x\)`, x times (\d+)", text).groups()  # type: ignore[union-attr]
        return [json.dumps({"tests": [f"assert {name}({n}) == {n * int(k)}" for n in (0, 3, 4)]})]
    at = next(at for at, noun in enumerate(NOUNS) if noun in text)
    noun, k = NOUNS[at], at + 2
    if "single ```python" in text:
        if noun == "cloud":
            return ["I would rather not."]
        flaky = "    import os\n    if os.path.exists('/nowhere'):\n        return 0\n" if noun == "lemon" else ""
        return [f"```python\ndef {noun}(x):\n{flaky}    return x * {k}\n```"]
    question = f"Write a function `{noun}(x)`, x times {k}, about {noun}s."
    if noun == "river":
        question = "Return the smallest missing positive integer of an unsorted list in linear time please"
    tests = [f"assert {noun}({n}) == {n * k}" for n in range(1, 8)]
    tests += [f"assert {noun}(2) == -1", f"assert {noun}", "x ="]
    if noun == "stone":
        tests = [f"assert {noun}(0) == 0", f"assert {noun}(1) == {k}"]
    reply = json.dumps({"question": question, "tests": tests})
    return [reply[:-9] if noun == "tiger" else reply]


@pytest.mark.extended
@needs_walls
def test_seeds_become_tested_questions_and_a_kill_changes_nothing(tmp_path: Path) -> None:
    seeds = [
        {"id": noun, "program": f"def {noun}(x):\n    return x\nprint(1)\n", "source": "evol", "license": "MIT"}
        for noun in NOUNS
    ]
    seeds.append({"id": "again", "program": "def apple(x): ...", "source": "oss", "license": "MIT"})
    write_jsonl(tmp_path / "seeds.jsonl", seeds)
    statement = "Return the SMALLEST missing positive integer of an unsorted list in linear time please"
    write_jsonl(tmp_path / "evaluation.jsonl", [{"task_id": "Eval/3", "prompt": statement}])
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with OpenAIServer(answer=written_answer) as server:
        recipe = write_recipe(
            tmp_path,
            ["synthesize"],
            "[writer]",
            f'url = "{server.url}"',
            "[oracle]",
            f'url = "{server.url}"',
            "[split]",
            "test = 0",
            "validation = 0",
            "validation_other = 0",
            "[synthesize]",
            "mutants = 4",
            "min_killed = 0.9",
            f'seeds = "{tmp_path}/seeds.jsonl"',
            f'evaluation = ["{tmp_path}/evaluation.jsonl"]',
        )
        assert main(["synthesize", str(recipe), "--run", str(whole)]) == 0
        server.least_s = 0.4  # of the asks that follow
        killed_after(4, cut / "synthesis" / "wrong.jsonl", stage("synthesize", recipe, cut))
        server.least_s = 0.0
        finished(stage("synthesize", recipe, cut))
        chain = ["[sample]", "n = 4", "[sampler]", f'url = "{server.url}"', "[verify]", "cpu_s = 2.0"]
        stages = ["synthesize", "sample", "verify", "pair"]
        recipe.write_text("\n".join([f"stages = {json.dumps(stages)}", *recipe.read_text().splitlines()[1:], *chain]))
        assert main(["all", str(recipe), "--run", str(cut)]) == 0

    kept = ("problems.jsonl", "suites.jsonl", "synthesis/dropped.jsonl", "synthesis/report.*")
    assert files_of(whole, *kept) == files_of(cut, *kept)
    assert len(files_of(whole, *kept)) == 5
    dropped = {r["task_id"]: r["reason"] for r in read_jsonl(whole / "synthesis" / "dropped.jsonl")}
    assert dropped == {
        "river": "evaluation_exact",
        "cloud": "no_oracle_program",
        "again": "duplicate",
        "stone": "too_few_tests",
    }
    problems = read_problems(whole / "problems.jsonl")
    assert set(problems) == {"apple", "lemon", "tiger", "piano", "candle"}
    for noun, problem in problems.items():
        k = NOUNS.index(noun) + 2
        assert set(problem.tests) <= {f"assert {noun}({n}) == {n * k}" for n in range(8)}
        assert len(problem.tests) >= 5
    counts = json.loads((whole / "synthesis" / "report.json").read_text())["counts"]
    assert counts["repaired"] == 1
    assert counts["tests_failed_by_oracle"] >= 4
    assert "Eval/3" in (whole / "synthesis" / "report.md").read_text()
    texts = {p.program_id: p.solution for p in read_programs(cut / "verified.jsonl")}
    pairs = [(texts[r["chosen"]], texts[r["rejected"]]) for r in read_jsonl(cut / "pairs.jsonl")]
    assert len(texts) == 4 * len(problems)
    assert {"return -1" in rejected for _, rejected in pairs} == {False}  # it passes nothing
    assert all(" * " in chosen and "return x * " not in rejected for chosen, rejected in pairs)
    assert json.loads((cut / "statistics.json").read_text())["sources"]["evol"]["samples"] == len(texts)
