"""Stages over a Ray cluster of several node processes: the rows of one process, also when a node is killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import HostLacks, InfraError
from sandbox.capabilities import HostCapabilities
from support.checkpoints import checkpoint
from support.ray_work import doubling, failing, lacking
from support.stack import wait_for
from training.data.programs import program_of
from training.pipeline.cli import main
from training.pipeline.config import RayConfig
from training.pipeline.files import read_jsonl, write_jsonl
from training.pipeline.ray_executors import chunked, ordered_on_ray, results_on_ray
from training.pipeline.records import Problem, as_row
from training.pipeline.run import Run

pytestmark = [
    pytest.mark.extended,
    pytest.mark.timeout(600),
    pytest.mark.skipif(HostCapabilities.probe().level != "strong", reason="programs cannot run here"),
    # Ray's own: a notice about GPUs in its next versions, and sockets that it leaves to the end of the process.
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ROOT = Path(__file__).parents[2]
NOUNS = "apple river stone cloud lemon tiger piano candle".split()  # noqa: SIM905
BODIES = ("return x * {k}", "return {k}", "return x + x", "return x / 0", "y = x * {k}\n    return y")


class LocalCluster:
    """A head without CPUs and nodes of one each, all processes of this host."""

    def __init__(self, num_nodes: int) -> None:
        ray = pytest.importorskip("ray")
        from ray.cluster_utils import Cluster

        self._ray = ray
        Path("/tmp/ray").mkdir(exist_ok=True)  # where Ray's `Cluster` notes the address, wherever its own folder is
        self._folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # short: sockets are in it
        common = {"object_store_memory": 80 << 20, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "temp_dir": self._folder, **common})
        self.nodes = [self.cluster.add_node(num_cpus=1, object_store_memory=80 << 20) for _ in range(num_nodes)]
        self.address = str(self.cluster.address)

    def kill(self, node: Any) -> None:
        """SIGKILL to every process of a node, without a word to the others."""
        self.cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        self._ray.shutdown()
        self.cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environ.setenv("PYTHONPATH", os.pathsep.join(str(ROOT / part) for part in ("", "client", "tests")))
        made = LocalCluster(2)
        yield made
        made.close()


def toy(at: int, k: int, fold: str = "train") -> Problem:
    noun = f"{NOUNS[at % len(NOUNS)]}_{at}"
    return Problem(
        task_id=f"T/{at}",
        base_id=f"T/{at}",
        prompt=f'def {noun}(x):\n    """Multiply by {k}.\n\n    >>> {noun}(2)\n    {2 * k}\n    """\n',
        entry_point=noun,
        canonical=f"def {noun}(x):\n    return x * {k}\n",
        test_setup="",
        tests=tuple(f"assert {noun}({n}) == {n * k}" for n in (1, 5, 7)),
        source="toys",
        license="MIT",
        fold=fold,  # type: ignore[arg-type]
    )


def begun(folder: Path, problems: list[Problem]) -> Run:
    """A run folder after `collect`, with a checkpoint to evaluate."""
    run = Run(folder, quiet=True)
    write_jsonl(run.path("problems.jsonl"), map(as_row, problems))
    checkpoint(run.path("checkpoint/config.json").parent)
    for name in ("collect", "fit"):
        run.finish(name, "by-hand", {}, 0.0, 0.0)
    return run


def recipe_of(folder: Path, samples: Path) -> Path:
    path = folder / "recipe.toml"
    path.write_text(
        f"""
stages = ["sample", "verify", "pair", "evaluate"]
[sample]
n = {len(BODIES)}
[sampler]
kind = "recorded"
path = "{samples}"
chat = false
[pair]
rejected_above_zero = false
[evaluate]
num_candidates = [1, 2, 4]
resamples = 50
draws = 5
generated_tests = 0
evidence_inputs = 4
[hub]
adapter = "humaneval"
[ray]
chunk = 3
"""
    )
    return path


def on(cluster: LocalCluster) -> list[str]:
    return ["--engine", "ray", "--ray.address", cluster.address]


def contents(folder: Path, *names: str) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def test_a_cluster_writes_what_one_process_writes(tmp_path: Path, cluster: LocalCluster) -> None:
    problems = [toy(at, at + 2, "test" if at % 3 == 0 else "train") for at in range(12)]
    rows = [
        {"task_id": problem.task_id, "completion": "    " + body.format(k=at + 2) + "\n"}
        for at, problem in enumerate(problems)
        for body in BODIES
    ]
    write_jsonl(tmp_path / "samples.jsonl", rows)
    here, there = begun(tmp_path / "here", problems), begun(tmp_path / "there", problems)
    recipe = str(recipe_of(tmp_path, tmp_path / "samples.jsonl"))
    for name in ("sample", "verify", "pair", "evaluate"):
        assert main([name, recipe, "--run", str(here.folder)]) == 0
        assert main([name, recipe, "--run", str(there.folder), *on(cluster)]) == 0
    files = ("samples/00000-of-00001.jsonl", "verified.jsonl", "pairs.jsonl", "statistics.json")
    assert contents(here.folder, *files) == contents(there.folder, *files)
    assert sum(1 for _ in read_jsonl(here.path("pairs.jsonl"))) > 20
    one, other = (json.loads(run.path("report.json").read_text()) for run in (here, there))
    for name in ("discrimination", "best_of_n", "calibration", "length", "tests", "revision", "parameters"):
        assert one[name] == other[name], name
    for name in ("sample", "verify", "pair", "evaluate"):  # a finished stage is finished, whoever did it
        assert here.record(name)["key"] == there.record(name)["key"]  # type: ignore[index]


SLEEPER = "import time\ntime.sleep(0.15)\n"


def verifying(folder: Path, num_programs: int) -> tuple[Path, Run]:
    """A recipe of `verify`, and a run folder with so many slow programs."""
    run = Run(folder / "run", quiet=True)
    problem = toy(0, 2)
    write_jsonl(run.path("problems.jsonl"), [as_row(problem)])
    programs = [
        program_of(problem, f"{SLEEPER}{problem.prompt}    return {at} * x\n", "sample", "m", "")
        for at in range(num_programs)
    ]
    write_jsonl(run.path("programs.jsonl"), map(as_row, programs))
    run.finish("collect", "by-hand", {}, 0.0, 0.0)
    path = folder / "recipe.toml"
    path.write_text('stages = ["collect", "verify"]\n[ray]\nchunk = 3\n')
    return path, run


@contextlib.contextmanager
def once(condition: Callable[[], bool], act: Callable[[], None]) -> Iterator[None]:
    """Do something as soon as a condition holds, while the block runs. Fails if it never held."""
    acted = threading.Event()

    def watch() -> None:
        wait_for(condition, 300, "the moment to act")
        act()
        acted.set()

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()
    assert acted.is_set()


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def test_a_node_killed_under_load_changes_no_row(tmp_path: Path, cluster: LocalCluster) -> None:
    node = cluster.cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    recipe, here = verifying(tmp_path / "here", 90)
    _, there = verifying(tmp_path / "there", 90)
    journal = there.path("verify.jsonl")
    seen: list[int] = []

    def kill() -> None:
        cluster.kill(node)
        seen.append(lines_of(journal))

    with once(lambda: lines_of(journal) >= 20, kill):
        assert main(["verify", str(recipe), "--run", str(there.folder), *on(cluster)]) == 0
    assert 20 <= seen[0] < 90  # it was at work
    assert main(["verify", str(recipe), "--run", str(here.folder)]) == 0
    assert contents(here.folder, "verified.jsonl") == contents(there.folder, "verified.jsonl")
    assert sorted(here.path("verify.jsonl").read_text().splitlines()) == sorted(journal.read_text().splitlines())
    assert there.record("verify")["summary"]["judged"] == 90  # type: ignore[index]


def test_a_killed_command_is_ended_by_another_engine(tmp_path: Path, cluster: LocalCluster) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    recipe, here = verifying(tmp_path / "here", 40)
    _, there = verifying(tmp_path / "there", 40)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "training.pipeline.cli",
            "verify",
            str(recipe),
            "--run",
            str(there.folder),
            *on(cluster),
        ],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"},
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: lines_of(there.path("verify.jsonl")) >= 5, 200, "the journal to grow")
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = lines_of(there.path("verify.jsonl"))
    assert before < 40
    assert main(["verify", str(recipe), "--run", str(there.folder)]) == 0
    assert main(["verify", str(recipe), "--run", str(here.folder)]) == 0
    assert contents(here.folder, "verified.jsonl") == contents(there.folder, "verified.jsonl")
    assert lines_of(there.path("verify.jsonl")) == 40  # nothing was judged twice


def test_chunks_are_taken_as_there_is_room_and_come_in_order(cluster: LocalCluster) -> None:
    settings = dataclasses.replace(RayConfig(), address=cluster.address)
    taken = 0

    def numbers() -> Iterator[int]:
        nonlocal taken
        for number in range(400):
            taken += 1
            yield number

    most = done = 0
    for rows in ordered_on_ray(doubling, chunked(numbers(), 4), settings):
        assert rows == [2 * number for number in range(done, done + 4)]
        done += 4
        most = max(most, taken - done)
    assert done == 400
    assert most <= 4 * 4 * 2 * 3  # chunks of 4; a few per executor


def test_what_ends_its_executors_fails_the_stage_by_name(cluster: LocalCluster) -> None:
    settings = dataclasses.replace(RayConfig(), address=cluster.address)
    with pytest.raises(InfraError, match=r"3 executors ended .* same 4 items"):
        list(results_on_ray(partial(doubling, 21), chunked(range(40), 4), settings))
    with pytest.raises(HostLacks, match=r"node .*: no sandbox"):
        list(results_on_ray(lacking, chunked(range(4), 4), settings))
    with pytest.raises(InfraError, match="no slot for"):
        list(results_on_ray(failing, chunked(range(4), 4), settings))
