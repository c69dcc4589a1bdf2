"""An executor's sandbox in a container that a kubelet would make without privilege, started by runc or crun."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.containers import DEPLOY, bundle, run
from support.guest_image import guest_image, guest_root  # noqa: F401  the fixtures

pytestmark = [pytest.mark.extended, pytest.mark.root, pytest.mark.timeout(2400)]
PROFILE = DEPLOY / "seccomp-executor-userns.json"


def unusable(name: str) -> str:
    """Why a runtime cannot be used here; empty if it can."""
    if shutil.which(name) is None:
        return f"needs {name} (apt-get install {name})"
    versions = {line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()} & {"cgroup", "cgroup2"}
    if name == "crun" and len(versions) == 2:
        return "crun needs a host with one version of cgroups, and this one has both"
    return ""


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if why := unusable(name):
        pytest.skip(why)
    return name


Made = Callable[..., Path]


@pytest.fixture
def made(guest_root: Path) -> Iterator[Made]:  # noqa: F811
    """Makes bundles in a folder that the container's uids can reach."""
    folder = guest_root.parent / "bundles"
    folder.mkdir(mode=0o755)

    def make(accept: str, *, unmasked_proc: bool = True) -> Path:
        return bundle(folder / "b", guest_root, accept, profile=PROFILE, unmasked_proc=unmasked_proc)

    yield make
    shutil.rmtree(folder)


def test_without_privilege_an_executor_has_level_userns(runtime: str, made: Made) -> None:
    answer = run(runtime, made("userns"), "plaudit-test-level")
    assert answer["capabilities"] == []
    assert (answer["uid"], answer["seccomp"], answer["no_new_privileges"]) == ("10001", "2", "1")
    assert answer["level"] == "userns"
    assert answer["verdicts"] == ["passed", "wrong_answer"]


def test_a_masked_proc_is_named(runtime: str, made: Made) -> None:
    answer = run(runtime, made("userns", unmasked_proc=False), "plaudit-test-masked")
    assert "level" not in answer
    assert "mount proc" in answer["refused"]


def test_level_strong_is_refused_there_and_says_what_is_missing(runtime: str, made: Made) -> None:
    answer = run(runtime, made("strong"), "plaudit-test-strong")
    assert "isolation level 'strong' is not available here" in answer["refused"]


def test_the_profile_is_in_force(runtime: str, made: Made) -> None:
    folder = made("userns")
    config = json.loads((folder / "config.json").read_text())
    call = "import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.syscall(321, 0, 0, 0), ctypes.get_errno())"
    config["process"]["args"] = ["/usr/bin/python3", "-c", call]
    (folder / "config.json").write_text(json.dumps(config))
    state = ["--root", str(folder / "state")]
    command = [str(shutil.which(runtime)), *state, "run", "--bundle", str(folder), "plaudit-test-bpf"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["-1", "1"], done.stderr  # bpf: EPERM
