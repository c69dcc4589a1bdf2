"""The metrics of a fit on disk: rows, and what TensorBoard shows of them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from training.pipeline.files import read_jsonl
from training.pipeline.run import Run
from training.reward_model.metrics_log import MetricsLog


def test_a_resumed_fit_goes_on_from_the_rows_of_its_step(tmp_path: Path) -> None:
    run = Run(tmp_path, quiet=True)
    for first, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        time.sleep(first and 1.1)  # files of one second and process are read in the order of their names
        with MetricsLog(run, "fit", first, ("tensorboard",)) as metrics:
            for step in steps:
                metrics.add({"step": step, "loss": first + 1 / step})
    expected = [(1, 1.0), (2, 0.5), (3, 2 + 1 / 3), (4, 2.25)]
    assert [(row["step"], row["loss"]) for row in read_jsonl(tmp_path / "fit.jsonl")] == expected

    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "fit"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (step, pytest.approx(loss)) for step, loss in expected
    ]
