"""Trackers of experiments, by name: each shows the rows of a training log as curves.

    fit.trackers = ["tensorboard", "wandb"]

- Everything stays in the run folder, and nothing is sent: `tensorboard/`, `wandb/` (offline; `wandb sync` uploads it),
  `trackio/` and `mlruns/`. The variables of each tracker's own (`WANDB_MODE`, `TRACKIO_DIR`, `MLFLOW_TRACKING_URI`)
  override that.
- The log in JSON lines is what counts: a tracker gets the same rows, and none decides anything.
- A resumed training goes on in the same TensorBoard log, trackio run and MLflow run. W&B keeps an offline run of the
  same id beside the first.
- Names and packages are known without importing any, so that a missing one is said before the training begins.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from plaudit.errors import UsageError
from training.pipeline.files import write_text
from training.pipeline.run import Run

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow-skinny"}
MODULES = {"mlflow-skinny": "mlflow"}  # where a package's module has another name


class Tracker(Protocol):
    """One tracker's view of one log."""

    def add(self, step: int, row: Mapping[str, float]) -> None:
        """Show this row at this step."""

    def close(self) -> None:
        """Write what is left; the training has ended."""


def missing_packages(field: str, names: Sequence[str]) -> Iterator[str]:
    """One line for each of these trackers that is unknown, or whose package is not installed."""
    for name in names:
        package = PACKAGES.get(name)
        if package is None:
            yield f"{field}: there is no tracker {name!r}; use {', '.join(PACKAGES)}"
        elif importlib.util.find_spec(MODULES.get(package, package)) is None:
            extra = "train" if name == "tensorboard" else "trackers"
            yield f"{field}: the package {package} is not installed: pip install 'plaudit-server[{extra}]'"


def open_trackers(
    names: Sequence[str], run: Run, log: str, first: int, settings: Mapping[str, Any] | None = None
) -> list[Tracker]:
    """The trackers of a log.

    Args:
        names: of `PACKAGES`.
        run: the run folder, whose name the trackers show.
        log: the log's name, as `fit`.
        first: the step at which a resumed training goes on, else 0.
        settings: of the training, shown beside the curves.

    Raises:
        UsageError: an unknown name, or a package that is not installed.
    """
    lacks = list(missing_packages("trackers", names))
    if lacks:
        raise UsageError("; ".join(lacks))
    return [OPENERS[name](run, log, first, dict(settings or {})) for name in dict.fromkeys(names)]


class TensorBoard:
    """Events in `tensorboard/LOG`."""

    def __init__(self, run: Run, log: str, first: int, settings: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard" / log
        if not first:
            shutil.rmtree(folder, ignore_errors=True)  # of another training
        self._writer: Any = SummaryWriter(str(folder), purge_step=first + 1 if first else None)

    def add(self, step: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """An offline run in `wandb/`."""

    def __init__(self, run: Run, log: str, first: int, settings: dict[str, Any]) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=project_of(run),
            name=log,
            id=_identity(run, log, "wandb", first, lambda: uuid.uuid4().hex[:8]),
            resume="allow",
            dir=str(run.folder),
            config=settings,
            mode=None if "WANDB_MODE" in os.environ else "offline",
            settings=wandb.Settings(silent=True, console="off", x_disable_meta=True),
        )

    def add(self, step: int, row: Mapping[str, float]) -> None:
        self._run.log(dict(row), step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A run in trackio's own file in `trackio/`."""

    def __init__(self, run: Run, log: str, first: int, settings: dict[str, Any]) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(run.folder.absolute() / "trackio"))  # read when it is imported
        import trackio

        name = _identity(run, log, "trackio", first, lambda: f"{log}-{int(time.time())}")
        options: dict[str, Any] = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for summaries
            self._run: Any = trackio.init(
                project=project_of(run), name=name, resume="allow", config=settings, **options
            )

    def add(self, step: int, row: Mapping[str, float]) -> None:
        self._run.log(dict(row), step=step)

    def close(self) -> None:
        import trackio

        with contextlib.redirect_stdout(sys.stderr):
            trackio.finish()


class MLflow:
    """A run in the file store `mlruns/`, or at the server that `MLFLOW_TRACKING_URI` names."""

    def __init__(self, run: Run, log: str, first: int, settings: dict[str, Any]) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            uri = (run.folder.absolute() / "mlruns").as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # the one store that needs no other package
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._client: Any = MlflowClient(tracking_uri=uri)
        project = project_of(run)
        experiment = self._client.get_experiment_by_name(project)
        number = experiment.experiment_id if experiment else self._client.create_experiment(project)
        self._id = _identity(
            run, log, "mlflow", first, lambda: str(self._client.create_run(number, run_name=log).info.run_id)
        )
        if not first:
            self._client.log_batch(self._id, params=[Param(name, str(value)[:500]) for name, value in settings.items()])

    def add(self, step: int, row: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, value, now_ms, step) for name, value in row.items()])

    def close(self) -> None:
        self._client.set_terminated(self._id)


OPENERS: dict[str, Callable[[Run, str, int, dict[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
    "mlflow": MLflow,
}


def project_of(run: Run) -> str:
    """What the trackers call the run: the folder's name."""
    return run.folder.absolute().name or "plaudit"


def _identity(run: Run, log: str, tracker: str, first: int, new: Callable[[], str]) -> str:
    """The tracker's own name of this training, kept so that a resumed one goes on under it."""
    path = run.path(f"stages/{log}.{tracker}")
    if first and path.is_file():
        return path.read_text(encoding="utf-8")
    name = new()
    write_text(path, name)
    return name
