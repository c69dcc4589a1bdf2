"""Level `vm`, end to end, in guests that QEMU emulates in software: correctness only, many times slower than KVM.

The image is built as users build it. Every program is judged by the sandbox of this host at level `strong`, too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plaudit.grading import Verdict
from sandbox.capabilities import HostCapabilities
from sandbox.judge import judge
from sandbox.open import open_sandbox
from sandbox.sandbox import Sandbox
from sandbox.types import (
    AssertSuite,
    CheckSuite,
    FunctionSuite,
    Limits,
    Options,
    Program,
    PytestSuite,
    StdioCase,
    StdioSuite,
    Stop,
    Suite,
    UnittestSuite,
)
from sandbox.types import Case as FunctionCase
from sandbox.vm.machine import GuestLost
from sandbox.vm.vm_sandbox import VmSandbox, open_vm_sandbox
from sandbox.vm_image import VmConfig
from service.settings import bundled_checkpoint
from support.broker import Broker
from support.exploits import FAMILIES, OURS, completion
from support.guest_image import guest_image  # noqa: F401  the fixture
from support.stack import Stack, wait_for

NO_STRONG = bool(HostCapabilities.probe().lacks["strong"])
pytestmark = [
    pytest.mark.extended,
    pytest.mark.root,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(
        bool(HostCapabilities.probe().lacks["strong"]), reason="needs isolation level strong to compare"
    ),
]
SLOW = Limits(cpu_s=60, wall_s=300)  # for an emulated processor
ADD = AssertSuite(("assert add(2, 3) == 5", "assert add(-1, 1) == 0"))
RIGHT = "def add(a, b):\n    return a + b\n"
SUM = StdioSuite((StdioCase("2 3\n", "5"), StdioCase("10 -4\n", "6")))
HOARD = "x = bytearray(400 << 20)\nx[::4096] = b'x' * len(x[::4096])\n"
# <cstdio>, because an emulated compiler needs longer for <iostream> than any compiler is given.
SUM_CPP = '#include <cstdio>\nint main() { int a, b; scanf("%%d %%d", &a, &b); printf("%%d\\n", a %s b); }\n'


@pytest.fixture(scope="module")
def vm(guest_image: Path) -> Iterator[VmSandbox]:  # noqa: F811
    with open_vm_sandbox(VmConfig(guest_image, emulation=True, answer_s=900)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def strong() -> Iterator[Sandbox]:
    with open_sandbox() as sandbox:
        yield sandbox


PAIRS: dict[str, tuple[str, str, Suite, Limits]] = {
    "asserts, right": ("python", RIGHT, ADD, SLOW),
    "asserts, wrong": ("python", "def add(a, b):\n    return abs(a) + b\n", ADD, SLOW),
    "an exception": ("python", "def add(a, b):\n    raise KeyError(a)\n", ADD, SLOW),
    "a syntax error": ("python", "def add(a, b:\n", ADD, SLOW),
    "a function": (
        "python",
        "def power(n):\n    return 3 ** n\n",
        FunctionSuite("power", (FunctionCase((900,), {}, 3**900), FunctionCase((2,), {}, 8))),
        SLOW,
    ),
    "HumanEval's check": (
        "python",
        RIGHT,
        CheckSuite("def check(candidate):\n    assert candidate(1, 1) == 2\n", "add"),
        SLOW,
    ),
    "pytest": (
        "python",
        RIGHT,
        PytestSuite(
            "from main import add\n\ndef test_add():\n    assert add(1, 1) == 2\n\n"
            "def test_no():\n    assert add(1, 1) == 3\n"
        ),
        SLOW,
    ),
    "unittest": (
        "python",
        RIGHT,
        UnittestSuite(
            "import unittest\nfrom main import add\n\nclass Sums(unittest.TestCase):\n"
            "    def test_add(self):\n        self.assertEqual(add(1, 1), 2)\n"
        ),
        SLOW,
    ),
    "stdin and stdout": ("python", "print(sum(map(int, input().split())))", SUM, SLOW),
    "C++, right": ("cpp", SUM_CPP % "+", SUM, SLOW),
    "C++, wrong": ("cpp", SUM_CPP % "-", SUM, SLOW),
    "C++ that does not compile": ("cpp", "int main( {", SUM, SLOW),
    "an endless loop": ("python", "while True:\n    pass\n", SUM, Limits(cpu_s=1)),
    "too much memory": (
        "python",
        "x = bytearray(400 << 20)\nx[::4096] = b'x' * len(x[::4096])\n",
        SUM,
        Limits(60, 300, 128),
    ),
    "too much output": ("python", "while True:\n    print('x' * 1000)\n", SUM, Limits(60, 300, output_kb=64)),
    "a fork bomb": (
        "python",
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n",
        SUM,
        Limits(cpu_s=1, wall_s=60, processes=16),
    ),
}


@pytest.mark.parametrize("case", PAIRS)
def test_a_guest_gives_the_verdicts_of_level_strong(case: str, vm: VmSandbox, strong: Sandbox) -> None:
    language, source, suite, limits = PAIRS[case]
    program = Program(language, source)
    ours, theirs = judge(program, suite, limits, Stop(), strong), vm.judge(program, suite, limits, Stop())
    assert theirs.isolation == "vm"
    assert (theirs.verdict, theirs.passed, theirs.total) == (ours.verdict, ours.passed, ours.total)
    assert [(test.verdict, test.name) for test in theirs.tests] == [(test.verdict, test.name) for test in ours.tests]


def test_forgeries_are_paid_nothing(vm: VmSandbox) -> None:
    problem = OURS[0]
    suite = CheckSuite(problem.test, problem.entry_point, problem.prompt)
    honest = vm.judge(Program("python", problem.solution), suite, SLOW, Stop())
    assert honest.passed == 1
    paid = [
        family
        for family in FAMILIES
        if vm.judge(Program("python", completion(family, problem.entry_point)), suite, SLOW, Stop()).passed
    ]
    assert paid == []


REACH = """
import os, socket
found = []
for family in (socket.AF_INET, socket.AF_VSOCK):
    try:
        socket.socket(family, socket.SOCK_STREAM)
        found.append(family)
    except OSError:
        pass
for path in ("/dev/vda", "/dev/vport1p1", "/dev/vport2p1", "/sys/class/virtio-ports", "/opt/plaudit/sandbox"):
    if os.path.exists(path):
        found.append(path)
print(found)
"""


def test_a_program_finds_neither_the_wire_nor_the_disk_nor_a_network(vm: VmSandbox) -> None:
    report = vm.judge(Program("python", REACH), StdioSuite((StdioCase("", "[]"),)), SLOW, Stop())
    assert (report.verdict, report.tests[0].stdout.strip()) == (Verdict.PASSED, "[]")


def test_qemu_has_no_capability_and_a_filter(vm: VmSandbox) -> None:
    assert vm.guest is not None
    lines = Path(f"/proc/{vm.guest.process.pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["Uid"].split()[0] == str(vm.uid)


def test_a_killed_guest_is_a_typed_error_and_the_next_judgement_has_a_fresh_one(vm: VmSandbox) -> None:
    started = vm.num_started
    assert vm.guest is not None
    pid = vm.guest.process.pid
    endless = StdioSuite((StdioCase("", ""),))
    killer = subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(5); os.kill({pid}, 9)"])
    with pytest.raises(GuestLost, match="a guest has ended"):
        vm.judge(Program("python", "import time\ntime.sleep(250)"), endless, SLOW, Stop())
    killer.wait()
    assert vm.judge(Program("python", RIGHT), ADD, SLOW, Stop(), Options()).passed == 2
    assert vm.num_started == started + 1


def test_a_killed_executor_leaves_no_guest(guest_image: Path) -> None:  # noqa: F811
    script = (
        "import sys, time; from pathlib import Path; from sandbox.vm.vm_sandbox import open_vm_sandbox\n"
        "from sandbox.vm_image import VmConfig\n"
        "vm = open_vm_sandbox(VmConfig(Path(sys.argv[1]), emulation=True))\n"
        "print(vm.guest.process.pid, flush=True)\ntime.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(guest_image)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        guest = int(owner.stdout.readline())
        assert Path(f"/proc/{guest}").exists()
        os.kill(owner.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while is_alive(guest) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(guest)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_a_service_answers_from_a_guest(guest_image: Path) -> None:  # noqa: F811
    item = {
        "language": "python",
        "programs": [RIGHT, "def add(a, b):\n    return a - b\n"],
        "tests": {"kind": "assert", "asserts": list(ADD.asserts)},
        "limits": {"cpu_s": 20},
    }
    flags = ["--isolation-accept", "vm", "--vm-image", str(guest_image), "--vm-emulation"]
    with Broker() as broker, Stack(broker, bundled_checkpoint(), scorers=0, executors=0) as stack:
        executor = stack.start_executor(*flags)
        with stack.client() as client:
            wait_for(lambda: client.get("/info").json()["workers"]["execute"], 900, "an executor with a guest")
            assert client.get("/info").json()["isolation"] == "vm"
            answer = client.post("/execute", json={"items": [item], "deadline_ms": 600_000}, timeout=600).json()
        programs = answer["results"][0]["programs"]
        assert [program["verdict"] for program in programs] == ["passed", "wrong_answer"]
        assert {program["isolation"] for program in programs} == {"vm"}
        assert executor.stop() == 0


def test_check_says_that_this_host_has_level_vm(guest_image: Path) -> None:  # noqa: F811
    flags = ["--isolation-accept", "vm", "--vm-image", str(guest_image), "--vm-emulation"]
    command = [sys.executable, "-m", "service.cli", "check", "--json", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    isolation = json.loads(done.stdout)["isolation"]
    assert (isolation["level"], isolation["accepted"], isolation["lacking"]["vm"]) == ("vm", "vm", [])
