"""Files beside compose and Kubernetes: an executor's profile without privilege, Slurm and SkyPilot.

tests/e2e/test_slurm.py runs the scripts of Slurm on a cluster, tests/e2e/test_skypilot.py has SkyPilot read its files.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from service.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


# --- the profile of an executor without privilege ---------------------------------------------------------------------


def refused(profile: str) -> set[str]:
    rules = json.loads((DEPLOY / profile).read_text())["syscalls"]
    return {name for rule in rules if "args" not in rule for name in rule["names"]}


def test_the_profile_without_privilege_refuses_more_than_the_privileged_one() -> None:
    own, other = refused("seccomp-executor-userns.json"), refused("seccomp-executor.json")
    assert other < own
    assert not own & {"clone", "unshare", "mount", "umount2", "pivot_root", "seccomp", "prctl", "setresuid"}


def test_the_profile_names_system_calls_that_exist() -> None:
    seccomp = pytest.importorskip("pyseccomp", reason="needs the extra `executor`", exc_type=ImportError)
    names = refused("seccomp-executor-userns.json")
    assert [name for name in names if seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) == -1] == []


# --- Slurm and SkyPilot -----------------------------------------------------------------------------------------------

SCRIPTS = sorted((DEPLOY / "slurm").glob("*.sbatch"))
TASKS = sorted((DEPLOY / "skypilot").glob("*.yaml"))


def parts(path: Path) -> list[str]:
    """The shell scripts of a file."""
    if path.suffix == ".sbatch":
        return [path.read_text()]
    task = yaml.safe_load(path.read_text())
    return [task["setup"], task["run"]]


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in (*SCRIPTS, *TASKS)])
def test_scripts_are_shell_and_stop_at_the_first_failure(path: Path) -> None:
    for script in parts(path):
        done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert "set -euo pipefail" in script


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in (*SCRIPTS, *TASKS)])
def test_scripts_use_settings_that_exist_and_refuse_to_start_without_a_url(path: Path) -> None:
    text = path.read_text()
    settings = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", text)) <= settings
    assert ': "${PLAUDIT_REDIS_URL:?' in text


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in SCRIPTS])
def test_slurms_signal_comes_before_its_end_and_drains(path: Path) -> None:
    text = path.read_text()
    signalled = re.search(r"^#SBATCH --signal=TERM@(\d+)$", text, re.MULTILINE)
    drain = re.search(r"PLAUDIT_DRAIN_S:-(\d+)", text)
    assert signalled is not None
    assert drain is not None
    assert int(drain[1]) < 30 <= int(signalled[1])  # 30: KillWait, as slurm.conf has it without a word
    assert "exec srun " in text


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in TASKS])
def test_a_rented_machine_holds_no_key_and_its_url_is_a_secret(path: Path) -> None:
    task = yaml.safe_load(path.read_text())
    assert task["secrets"] == {"PLAUDIT_REDIS_URL": None}
    assert not [name for name in task["envs"] if "KEY" in name or "URL" in name]
