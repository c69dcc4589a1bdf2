"""README, followed to the letter in a bare Debian 12: from the clone to the first ranked answer.

    sudo python benchmarks/studies/newcomer.py           # minutes, most of them pip's; needs root and debootstrap
    sudo python benchmarks/studies/newcomer.py --test    # and `make test`

The root has what debootstrap's smallest variant has, and git, make, curl, Python and its venv: nothing else. There it
clones this repository at HEAD, takes the blocks out of the clone's README, and does what they say, in their order:

- `make run`, until its table is printed and it serves; Ctrl-C; nothing of it may be left
- `make up`, and every `bash service` block against it; what the README says of the answer is compared
- every `python` block, by the clone's own Python

`--copy PATH` copies a file or folder of the host into the root (a CA certificate, configuration of pip or apt, wheels),
`--pass NAME` passes an environment variable: for hosts that reach the internet through something of their own. `--root
FOLDER` keeps the bare root there, and uses the one that is there already.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGES = "git,make,ca-certificates,curl,python3,python3-venv"
HOME = "/root/plaudit"
BLOCK = re.compile(r"^```(\S[^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN_S, TEST_S, CALL_S = 3600.0, 7200.0, 120.0
PR_SET_CHILD_SUBREAPER = 36

# The steps inside, as their own process in a mount namespace of its own.
# Not in a PID namespace: a jail's cgroup has the pid of its owner in its name, and who shares the tree of cgroups but
# cannot see that pid takes the group for stale.
ENTER = """\
set -eu
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --rbind /sys sys && mount --make-rslave sys
mount --rbind /dev dev && mount --make-rslave dev
mkdir -p old && pivot_root . old && umount -l old && rmdir old
cd / && exec python3 /newcomer.py --inside "$2"
"""


def make_root(root: Path, mirror: str) -> None:
    """A bare Debian 12."""
    argv = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root), mirror]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def furnish(root: Path, copies: list[Path]) -> None:
    """What a newcomer needs beside a bare Debian: the way to the internet, and this repository to clone from."""
    repository = Path(__file__).resolve().parents[2]
    for path in (Path("/etc/resolv.conf"), *copies):
        target = root / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        else:
            shutil.copy(path.resolve(), target)
    shutil.copy(__file__, root / "newcomer.py")
    bare = ["git", "clone", "--quiet", "--bare", "--single-branch", str(repository), str(root / "plaudit.git")]
    subprocess.run(bare, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True)
    (root / "plaudit.git" / "HEAD").write_text(head.stdout)


# --- inside ----------------------------------------------------------------------------------------------------------


class Inside:
    """What a newcomer does, and how long it took."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.times: dict[str, float] = {}

    def done(self, step: str) -> None:
        self.times[step] = round(time.monotonic() - self.began, 1)
        print(f"{self.times[step]:>8.1f} s  {step}", file=sys.stderr, flush=True)

    def shell(self, line: str, seconds: float) -> str:
        """A line that ends. Raises AssertionError with its output if it fails."""
        argv = ["bash", "-euo", "pipefail", "-c", line]
        done = subprocess.run(argv, check=False, cwd=HOME, capture_output=True, text=True, timeout=seconds)
        assert done.returncode == 0, f"{line}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def until(self, line: str, marks: dict[str, str], seconds: float) -> subprocess.Popen[str]:
        """Start a line that serves; the steps of `marks` are done when a line of output matches."""
        argv = ["bash", "-c", f"exec {line} 2>&1"]
        process = subprocess.Popen(argv, cwd=HOME, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stdout is not None
        left, printed, until = dict(marks), [], time.monotonic() + seconds
        while left:
            text = process.stdout.readline()
            printed.append(text)
            said = "".join(printed[-40:])
            assert text, f"{line} ended:\n{said}"
            assert time.monotonic() < until, f"{line} took more than {seconds:g} s:\n{said}"
            print(f"          | {text}", end="", file=sys.stderr)
            for step in [step for step, mark in left.items() if re.match(mark, text)]:
                del left[step]
                self.done(step)
        return process

    def interrupt(self, line: str, process: subprocess.Popen[str]) -> None:
        """Ctrl-C on its terminal."""
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout is not None
        process.stdout.read()
        code = process.wait(timeout=120)
        assert code in (0, 130, -signal.SIGINT), f"{line} ended with {code} at Ctrl-C"
        left = [name for name in processes() if "plaudit" in name or "valkey" in name]
        assert left == [], f"left over by {line}: {left}"
        self.done(f"{line}: stopped by Ctrl-C, nothing left")


def processes() -> list[str]:
    """The command lines of all other processes that live in this root."""
    own, names = os.stat("/proc/self/root"), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            root = os.stat(folder / "root")
        except OSError:  # it has ended
            continue
        if words and int(folder.name) != os.getpid() and os.path.samestat(root, own):
            names.append(words)
    return names


def inside(*, test: bool) -> dict[str, float]:
    """Follow the README. Returns the seconds since the clone began, by step."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    steps = Inside()
    subprocess.run(["git", "clone", "--quiet", "/plaudit.git", HOME], check=True)
    steps.done("cloned")
    blocks = [(found[1], found[2]) for found in BLOCK.finditer(Path(HOME, "README.md").read_text("utf-8"))]
    lines = [line.partition("#")[0].strip() for info, code in blocks if info == "sh" for line in code.splitlines()]
    assert {"make run", "make test"} <= set(lines), f"the README's first block is another: {lines}"

    ranked = {"make run: the first ranked answer": r"\* +1 ", "make run: serves": r"Ctrl-C stops everything"}
    steps.interrupt("make run", steps.until("make run", ranked, RUN_S))

    up = steps.until("make up", {"make up: ready": r'\{"event": "ready"'}, RUN_S)
    for number, code in enumerate((code for info, code in blocks if info == "bash service"), start=1):
        answer = json.loads(steps.shell(code, CALL_S))
        assert answer["results"][0]["order"] == [1, 0], answer
        steps.done(f"shell block {number}: order [1, 0]")
    for number, code in enumerate((code for info, code in blocks if info == "python"), start=1):
        Path(HOME, "block.py").write_text(code)
        steps.shell(".venv/bin/python block.py && rm block.py", CALL_S)
        steps.done(f"Python block {number}: runs")
    steps.interrupt("make up", up)
    if test:
        print(steps.shell("make test | tail -20", TEST_S), file=sys.stderr)
        steps.done("make test")
    return steps.times


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mirror", default="http://deb.debian.org/debian")
    options.add_argument("--copy", action="append", default=[], type=Path, metavar="PATH")
    options.add_argument("--root", type=Path, metavar="FOLDER")
    options.add_argument("--pass", action="append", default=[], dest="passed", metavar="NAME")
    options.add_argument("--test", action="store_true", help="run `make test`, too")
    options.add_argument("--inside", metavar="JSON", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.inside is not None:
        print(json.dumps(inside(**json.loads(arguments.inside))))
        return 0
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        print("needs root, and debootstrap (apt-get install debootstrap)", file=sys.stderr)
        return 3
    places = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    environ = {"HOME": "/root", "PATH": places, "LANG": "C.UTF-8"}
    environ |= {name: os.environ[name] for name in arguments.passed if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="newcomer-") as folder:
        root = Path(folder) / "root"
        if arguments.root is None:
            make_root(root, arguments.mirror)
        else:
            if not arguments.root.is_dir():
                make_root(arguments.root, arguments.mirror)
            subprocess.run(["cp", "-a", str(arguments.root), str(root)], check=True)
        furnish(root, arguments.copy)
        flags = ["--mount", "--fork", "--kill-child", "--propagation", "private"]
        argv = ["unshare", *flags, "sh", "-c", ENTER, "sh", str(root), json.dumps({"test": arguments.test})]
        done = subprocess.run(argv, check=False, env=environ, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return 1
    print("| step | seconds since the clone began |\n|---|---:|")
    for step, seconds in json.loads(done.stdout.splitlines()[-1]).items():
        print(f"| {step} | {seconds:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
