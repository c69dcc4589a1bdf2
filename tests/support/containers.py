"""Runs the executor's sandbox in a container by runc or crun, without a daemon: a bundle as a kubelet would make it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FIRST_ID, NUM_IDS = 200_000, 65_536  # of the host, to which a container's user namespace maps
UID = 10_001
# Opens a sandbox, which proves its isolation first, and judges an honest and a wrong program in it.
PROBE = """
import json, sys
from sandbox.capabilities import HostCapabilities, capabilities
from sandbox.errors import IsolationUnavailable
from sandbox.judge import judge
from sandbox.open import open_sandbox
from sandbox.types import AssertSuite, Limits, Program, Stop

status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
answer = {"capabilities": sorted(capabilities()), "uid": status["Uid"].split()[0], "seccomp": status["Seccomp"],
          "no_new_privileges": status["NoNewPrivs"], "lacks": dict(HostCapabilities.probe().lacks)}
suite = AssertSuite(("assert f(2) == 4",))
try:
    with open_sandbox(sys.argv[1]) as sandbox:
        answer["level"] = sandbox.level
        answer["verdicts"] = [
            judge(Program("python", source), suite, Limits(), Stop(), sandbox).verdict.value
            for source in ("def f(x): return 2 * x", "def f(x): return x")
        ]
except IsolationUnavailable as error:
    answer["refused"] = str(error)
print(json.dumps(answer))
"""
DEFAULT_MOUNTS: list[dict[str, Any]] = [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777"],
    },
    {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]},
    {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=755"]},
]
MASKED = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/scsi"]


def seccomp_of(profile: Path) -> dict[str, Any]:
    """A profile in Docker's form as the runtime takes it."""
    text = json.loads(profile.read_text())
    rules = [{key: value for key, value in rule.items() if key != "comment"} for rule in text["syscalls"]]
    for rule in rules:
        for arg in rule.get("args", []):
            arg.setdefault("valueTwo", 0)
    architectures = [name for entry in text["archMap"] for name in (entry["architecture"], *entry["subArchitectures"])]
    return {"defaultAction": text["defaultAction"], "architectures": architectures[:3], "syscalls": rules}


def bundle(
    folder: Path, root: Path, accept: str, *, profile: Path | None, unmasked_proc: bool, user_namespace: bool = True
) -> Path:
    """Write a container's bundle: no capability, no way to gain one, a read-only root, one program."""
    folder.mkdir()
    kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup", *(["user"] if user_namespace else [])]
    mapping = [{"containerID": 0, "hostID": FIRST_ID, "size": NUM_IDS}]
    linux: dict[str, Any] = {"namespaces": [{"type": kind} for kind in kinds]}
    if user_namespace:
        linux |= {"uidMappings": mapping, "gidMappings": mapping}
    if profile is not None:
        linux["seccomp"] = seccomp_of(profile)
    if not unmasked_proc:
        linux |= {"maskedPaths": MASKED, "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"]}
    empty: list[str] = []
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": UID, "gid": UID},
            "args": ["/usr/bin/python3", "-s", "-P", "-c", PROBE, accept],
            "env": ["PATH=/usr/bin:/bin", "PYTHONPATH=/opt/plaudit", "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient"), empty),
            "noNewPrivileges": True,
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 4096}],
        },
        "root": {"path": str(root), "readonly": True},
        "hostname": "executor",
        "mounts": DEFAULT_MOUNTS,
        "linux": linux,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def run(runtime: str, folder: Path, name: str) -> dict[str, Any]:
    """What the probe printed. Raises RuntimeError with the runtime's last words."""
    state = folder / "state"
    command = [str(shutil.which(runtime)), "--root", str(state), "run", "--bundle", str(folder), name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ}, check=False)
    if done.returncode:
        raise RuntimeError(f"{runtime}: exit code {done.returncode}: {done.stderr.strip()[-800:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
