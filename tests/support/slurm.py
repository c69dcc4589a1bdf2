"""A Slurm cluster of one node on loopback: munged, slurmctld and slurmd in a folder of the test's own."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from support.stack import free_port, wait_for

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue", "scontrol")
CONFIG = """
ClusterName=plaudit
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
PlugStackConfig={folder}/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=30
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/builtin
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """What keeps this host from running a cluster; empty if nothing."""
    lacks = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacks:
        return f"{', '.join(lacks)} (apt-get install slurmctld slurmd slurm-client munge)"
    return "" if os.geteuid() == 0 else "root, as which slurmd runs"


class Slurm:
    """A context manager: the cluster lives inside it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="plaudit-slurm-"))
        self.folder.chmod(0o755)
        self.daemons: list[subprocess.Popen[bytes]] = []
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        (self.folder / "plugstack.conf").touch()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        self.config = self.folder / "slurm.conf"
        self.config.write_text(
            CONFIG.format(
                host=socket.gethostname().split(".")[0],
                folder=self.folder,
                controller_port=free_port(),
                node_port=free_port(),
                cpus=os.cpu_count(),
            )
        )
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PLAUDIT_", "SLURM_"))}
        self.environ = inherited | {"SLURM_CONF": str(self.config)}

    def __enter__(self) -> Slurm:
        place = self.folder
        munged = [
            "munged",
            "--foreground",
            "--force",
            f"--key-file={place}/munge.key",
            f"--socket={place}/munge.socket",
        ]
        munged += [f"--pid-file={place}/munged.pid", f"--seed-file={place}/munged.seed", "--log-file=/dev/stderr"]
        try:
            self._start("munged", [*munged, "--num-threads=2"])
            wait_for((place / "munge.socket").exists, 60, "munged")
            self._start("slurmctld", ["slurmctld", "-D", "-f", str(self.config)])
            self._start("slurmd", ["slurmd", "-D", "-f", str(self.config)])
            wait_for(
                lambda: "idle" in self.run("sinfo", "--noheader", "--format=%t", check=False),
                120,
                f"a node that is idle; logs are in {place}",
            )
        except BaseException:
            self.close()
            raise
        return self

    def _start(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self.daemons.append(subprocess.Popen(command, stdout=out, stderr=out, env=self.environ, cwd=self.folder))

    def run(self, *command: str, check: bool = True, **environ: str) -> str:
        """The output of a command of Slurm's."""
        done = subprocess.run(
            command,
            env=self.environ | environ,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def submit(self, script: Path, *flags: str, **environ: str) -> str:
        """Submit a script; the job's id."""
        match = re.search(r"\d+", self.run("sbatch", *flags, str(script), **environ))
        assert match is not None
        return match[0]

    def state(self, job: str) -> str:
        """A job's state and exit code, as `scontrol show job` has them."""
        text = self.run("scontrol", "show", "job", job)
        found = re.search(r"JobState=(\w+).*?ExitCode=(\d+:\d+)", text, re.DOTALL)
        assert found is not None, text
        return f"{found[1]} {found[2]}"

    def close(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(self, *error: object) -> None:
        self.close()
