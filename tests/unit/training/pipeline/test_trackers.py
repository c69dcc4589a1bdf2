"""Trackers by name: each keeps the rows of a log in the run folder, sends nothing, and goes on after a kill."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import HostLacks, UsageError
from training.pipeline import trackers
from training.pipeline.config import FitConfig, Recipe, override
from training.pipeline.digests import content_key
from training.pipeline.needs import check_needs
from training.pipeline.run import Run
from training.pipeline.trackers import open_trackers

# A process per tracker, as a training is one: each keeps connections, threads or a configuration of its process.
TRAINING = """
import sys
from pathlib import Path
from training.pipeline.run import Run
from training.reward_model.metrics_log import MetricsLog

folder, name, first, *steps = sys.argv[1:]
with MetricsLog(Run(Path(folder), quiet=True), "fit", int(first), (name,), {"lr": 0.001}) as log:
    for step in map(int, steps):
        log.add({"step": step, "loss": int(first) + 1 / step, "reward/mean": 0.5})
"""
EXPECTED = [(1, 1.0), (2, 0.5), (3, 2 + 1 / 3), (4, 2.25)]


def trained(folder: Path, tracker: str, first: int, *steps: int) -> str:
    """One training of these steps; what it printed on standard output."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRAINING, str(folder), tracker, str(first), *map(str, steps)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def trackio_rows(folder: Path) -> list[tuple[int, float]]:
    (database,) = (folder / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select step, metrics, run_name from metrics order by step").fetchall()
    assert len({name for _, _, name in rows}) == 1
    newest: dict[int, float] = {}
    for step, metrics, _ in rows:
        newest[step] = json.loads(metrics)["loss"]
    return sorted(newest.items())


def mlflow_rows(folder: Path) -> list[tuple[int, float]]:
    (metric,) = (folder / "mlruns").glob("*/*/metrics/loss")
    (rate,) = (folder / "mlruns").glob("*/*/params/lr")
    assert rate.read_text() == "0.001"
    newest = {}
    for line in metric.read_text().splitlines():
        _, value, step = line.split()[:3]
        newest[int(step)] = float(value)
    return sorted(newest.items())


def wandb_records(path: Path) -> Iterator[bytes]:
    """The records of an offline run: a header of 7 bytes, then LevelDB's log format."""
    data, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := -at % 32768) and left < 7:
            at += left  # a block's end that is too short for a record
        _, length, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last of its parts
            yield record
            record = b""


def wandb_rows(folder: Path) -> list[tuple[int, float]]:
    from wandb.proto import wandb_internal_pb2

    rows: dict[int, float] = {}
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns):
        for data in wandb_records(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            if "loss" in items:
                rows[record.history.step.num] = json.loads(items["loss"])
    return sorted(rows.items())


READERS: dict[str, Callable[[Path], list[tuple[int, float]]]] = {  # TensorBoard's is in test_metrics_log.py
    "wandb": wandb_rows,
    "trackio": trackio_rows,
    "mlflow": mlflow_rows,
}


@pytest.mark.parametrize("name", READERS)
def test_a_training_and_its_resumption_are_one_curve(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name, reason=f"needs the package {trackers.PACKAGES[name]} (plaudit-server[trackers])")
    folder = tmp_path / "mini"
    assert trained(folder, name, 0, 1, 2, 3) == ""  # standard output is for summaries
    assert trained(folder, name, 2, 3, 4) == ""
    assert READERS[name](folder) == [(step, pytest.approx(loss)) for step, loss in EXPECTED]
    assert {path.name for path in tmp_path.iterdir()} == {"mini"}


def test_a_missing_package_is_said_before_the_first_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.MODULES, "mlflow-skinny", "a_package_that_nobody_has")
    recipe = override(Recipe(), ["--fit.trackers", "tensorboard,mlflow,curves"])
    with pytest.raises(HostLacks) as raised:
        check_needs(recipe, ["fit"], tmp_path)
    assert "fit.trackers: the package mlflow-skinny is not installed: pip install 'plaudit-server[trackers]'" in str(
        raised.value
    )
    assert "there is no tracker 'curves'; use tensorboard, wandb, trackio, mlflow" in str(raised.value)
    with pytest.raises(UsageError, match="curves"):
        open_trackers(("curves",), Run(tmp_path, quiet=True), "fit", 0)


def test_another_tracker_does_not_train_again() -> None:
    settings = FitConfig()
    more: Any = dataclasses.replace(settings, trackers=("wandb",))
    assert content_key(settings) == content_key(more)
    assert content_key(settings) != content_key(dataclasses.replace(settings, lr=1.0))
