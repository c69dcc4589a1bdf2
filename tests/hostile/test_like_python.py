"""The warm Python against plain `python3 main.py` over pipes: same stdout, same exit, same last line of stderr.

A grammar makes most programs: every way to set up an output, times every way to write, times every way to end. The rest
are written by hand, by family (`like_python.txt`). None may depend on time, pids or folders.

What differs is listed in docs/sandbox.md with its reason, and nowhere else: this test reads the list there, fails on a
difference that is not listed, and on a listed one that is no longer there.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox import languages
from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Options, Program, RunSuite, Stop

STDIN = "3 4\nb\r\nlast without newline ü"
BY_HAND = Path(__file__).with_name("like_python.txt")
DOCS = Path(__file__).parents[2] / "docs" / "sandbox.md"
LIMITS = Limits(cpu_s=5, memory_mb=256)
ADDRESS = re.compile(rb"0x[0-9a-f]+")
SLICE = 8  # of the whole, one in so many is run in every `make test`

# What stands for `out` afterwards is written to; what stands for `done` is run at the end, if anything.
OUTPUTS = {
    "as it is": "out = sys.stdout",
    "reconfigured": "sys.stdout.reconfigure(encoding='utf-8', errors='replace')\nout = sys.stdout",
    "line buffered": "sys.stdout.reconfigure(line_buffering=True)\nout = sys.stdout",
    "write through": "sys.stdout.reconfigure(write_through=True)\nout = sys.stdout",
    "newlines": "sys.stdout.reconfigure(newline='\\r\\n')\nout = sys.stdout",
    "wrapped": "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\nout = sys.stdout",
    "detached": "sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding='latin-1', errors='replace')\n"
    "out = sys.stdout",
    "codecs": "sys.stdout = codecs.getwriter('utf-8')(sys.stdout.buffer)\nout = sys.stdout",
    "codecs, detached": "sys.stdout = codecs.getwriter('utf-8')(sys.stdout.detach())\nout = sys.stdout",
    "open(1)": "out = open(1, 'w', closefd=False)",
    "open(1), taking it": "out = open(1, 'w')",
    "fdopen of a copy": "out = os.fdopen(os.dup(1), 'w')",
    "fdopen by fileno": "out = os.fdopen(sys.stdout.fileno(), 'w', closefd=False)",
    "unbuffered bytes": "raw = open(1, 'wb', buffering=0, closefd=False)\n"
    "class Out:\n    def write(self, t): return raw.write(t.encode())\n    def flush(self): pass\n"
    "out = sys.stdout = Out()",
    "/dev/stdout": "out = open('/dev/stdout', 'w')",
    "/proc/self/fd/1": "out = open('/proc/self/fd/1', 'a')",
    "StringIO, at the end": "buffer = io.StringIO()\nsys.stdout = out = buffer\n"
    "atexit.register(lambda: sys.__stdout__.write(buffer.getvalue()))",
    "StringIO, by os.write": "buffer = io.StringIO()\nout = sys.stdout = buffer\n"
    "atexit.register(lambda: os.write(1, buffer.getvalue().encode()))",
    "BytesIO, at the end": "store = io.BytesIO()\nout = sys.stdout = io.TextIOWrapper(store, write_through=True)\n"
    "atexit.register(lambda: sys.__stdout__.buffer.write(store.getvalue()))",
    "a class with __del__": "class Out:\n    def __init__(self): self.parts = []\n"
    "    def write(self, t): self.parts.append(t)\n    def flush(self): pass\n"
    "    def __del__(self): os.write(1, ''.join(self.parts).encode())\nout = Out()",
    "finalize": "buffer = io.StringIO()\nclass Key: pass\nkey = Key()\n"
    "weakref.finalize(key, lambda b: os.write(1, b.getvalue().encode()), buffer)\nout = buffer",
    "another file, copied": "out = open('copy.txt', 'w')\n"
    "atexit.register(lambda: (out.close(), print(open('copy.txt').read())))",
}
WRITES = {
    "prints": "print('one', 2, file=out)\nprint('three', end='', file=out)",
    "mixed with the old one": "out.write('first\\n')\nsys.__stdout__ and not sys.__stdout__.closed and "
    "os.write(1, b'[raw]')\nout.write('second ü\\n')",
    "much": "for i in range(3000): out.write(f'{i} ')",
    "in a thread": "t = threading.Thread(target=lambda: (time.sleep(0.02), out.write('late\\n')))\n"
    "t.start()\nout.write('early\\n')",
}
ENDS = {
    "falls off": "",
    "sys.exit": "sys.exit(3)",
    "a message": "sys.exit('good bye')",
    "an exception": "out.write('x')\nraise ValueError('no', 3)",
    "flushed and os._exit": "out.flush()\nos._exit(4)",
    "os._exit": "os._exit(5)",
}
HEAD = "import atexit, codecs, io, os, sys, threading, time, weakref\n"

End = tuple[int, bytes, bytes]


@dataclass(frozen=True)
class Sample:
    family: str
    name: str
    source: str


def samples() -> list[Sample]:
    made = itertools.product(OUTPUTS.items(), WRITES.items(), ENDS.items())
    found = [
        Sample("grammar", f"{output}; {way}; {end}", f"{HEAD}{setup}\n{write}\n{last}\n")
        for (output, setup), (way, write), (end, last) in made
    ]
    for part in re.split(r"(?m)^== ", BY_HAND.read_text(encoding="utf-8"))[1:]:
        family, _, programs = part.partition("\n")
        for number, source in enumerate(programs.removesuffix("\n").split("\n--\n")):
            head = "" if source.startswith("from __future__") else HEAD
            found.append(Sample(family, f"{family} {number}", f"{head}{source}\n"))
    return found


def shown(code: int, stdout: bytes, stderr: bytes) -> End:
    last = stderr.rstrip(b"\n").rpartition(b"\n")[2]
    return code, ADDRESS.sub(b"0x", stdout), ADDRESS.sub(b"0x", last)


def plain(sample: Sample) -> End:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "main.py").write_text(sample.source, encoding="utf-8")
        done = subprocess.run(
            [str(languages.python_binary()), "main.py"],
            input=STDIN.encode(),
            capture_output=True,
            cwd=folder,
            env={**languages.ENVIRONMENT, "HOME": folder},
            timeout=60,
            check=False,
        )
    return shown(done.returncode, done.stdout.replace(folder.encode(), b"/tmp"), done.stderr)


def warm(sandbox: Sandbox, sample: Sample, options: Options) -> End:
    report = judge(Program("python", sample.source), RunSuite(STDIN), LIMITS, Stop(), sandbox, options)
    output = report.output
    if output is None:
        return 0, b"no output", report.tests[0].detail.encode()
    code = output.exit_code if output.exit_code is not None else -(output.signal or 0)
    return shown(code, output.stdout, output.stderr)


def listed() -> dict[str, str]:
    """The names of the samples that are known to differ, and why."""
    text = DOCS.read_text(encoding="utf-8")
    table = text.partition("<!-- like python: begin")[2].partition("<!-- like python: end")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ") and "---" not in line]
    return {name.strip().strip("`"): why.strip() for name, why in rows[1:]}


def compare(sandbox: Sandbox, chosen: Sequence[Sample]) -> tuple[dict[str, tuple[End, End]], list[str]]:
    """What differs, and the table of families. What differs once is tried again: threads may take turns otherwise."""
    with ThreadPoolExecutor(4) as pool:
        expected = list(pool.map(plain, chosen))
    differs = {}
    for sample, want in zip(chosen, expected, strict=True):
        seen = warm(sandbox, sample, Options())
        if seen != want and (warm(sandbox, sample, Options()) != plain(sample)):
            differs[sample.name] = want, seen
    number = Counter(sample.family for sample in chosen)
    different = Counter(sample.family for sample in chosen if sample.name in differs)
    table = ["| family | programs | same | different |", "|---|---:|---:|---:|"]
    table += [f"| {family} | {n} | {n - different[family]} | {different[family]} |" for family, n in number.items()]
    table.append(f"| **all** | {len(chosen)} | {len(chosen) - len(differs)} | {len(differs)} |")
    return differs, table


def check(sandbox: Sandbox, chosen: Sequence[Sample], known: dict[str, str]) -> None:
    differs, table = compare(sandbox, chosen)
    print("\n".join(table))
    for name, (want, seen) in differs.items():
        if name not in known:
            print(f"{name}:\n  python3 {want}\n  warm    {seen}")
    assert sorted(set(differs) - set(known)) == []
    gone = {sample.name for sample in chosen} & set(known) - set(differs)
    assert sorted(gone) == [], "listed in docs/sandbox.md, and no longer different"


def test_a_slice_of_programs_ends_as_under_python3(sandbox: Sandbox) -> None:
    check(sandbox, samples()[::SLICE], listed())


@pytest.mark.extended
@pytest.mark.slow
def test_every_program_ends_as_under_python3(sandbox: Sandbox) -> None:
    everything = samples()
    assert len(everything) >= 400
    assert set(listed()) <= {sample.name for sample in everything}
    check(sandbox, everything, listed())


def test_a_fresh_interpreter_is_python3_itself(sandbox: Sandbox) -> None:
    """The sample of the method: where the interpreter is started for the program, nothing differs but its wall time."""
    for sample in samples()[:: SLICE * 8]:
        assert warm(sandbox, sample, Options(fresh_interpreter=True)) == plain(sample), sample.name
