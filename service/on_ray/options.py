"""What a deployment on Ray is: its name, how many executors it may have, and where its actors may be placed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from plaudit.errors import UsageError

HEAD_NODE = "node:__internal_head__"  # a resource that Ray gives the head node alone
LABEL = re.compile(r"[A-Za-z0-9._/-]+")


def option(default: Any, description: str, *, metavar: str = "N", **bounds: Any) -> Any:
    """Declare one option: `description` is its flag's help, `bounds` are those of pydantic's `Field`."""
    return Field(default, description=description, json_schema_extra={"metavar": metavar}, **bounds)


class DeploymentOptions(BaseModel):
    """Options of `plaudit ray up` beside the settings of the processes. Counts are of processes, not of actors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = option(
        "plaudit",
        "name of the deployment; programs of the cluster reach it as ray://NAME",
        metavar="NAME",
        pattern=r"^[A-Za-z0-9_.-]+$",
    )
    actor_cpus: int = option(4, "CPUs that one executing actor asks Ray for; it runs as many executors", ge=1, le=1024)
    min_executors: int = option(4, "executors that there are at least, in whole actors", ge=1)
    max_executors: int = option(16, "executors that there are at most, in whole actors", ge=1)
    jobs_per_executor: float = option(
        8.0, "programs waiting or running per executor, beyond which executors are added", gt=0
    )
    max_wait_s: float = option(
        5.0, "how long the oldest program may wait before executors are added", metavar="SECONDS", gt=0
    )
    idle_s: float = option(
        60.0, "how long fewer executors must have been enough before some are drained", metavar="SECONDS", ge=0
    )
    scorer_gpus: float | None = option(
        None, "GPUs that one scorer asks Ray for; empty: 1, or none if the cluster has no GPU or --device is cpu", ge=0
    )
    executor_resources: dict[str, float] = option(
        {}, "further resources that an executing actor asks for", metavar="NAME=AMOUNT"
    )
    scorer_resources: dict[str, float] = option({}, "the same of a scorer", metavar="NAME=AMOUNT")
    front_resources: dict[str, float] | None = option(
        None, "the same of API, broker and controller; empty, and no labels: the head node", metavar="NAME=AMOUNT"
    )
    executor_labels: dict[str, str] = option(
        {}, "labels that an executing actor's node must have", metavar="NAME=VALUE"
    )
    scorer_labels: dict[str, str] = option({}, "the same of a scorer", metavar="NAME=VALUE")
    front_labels: dict[str, str] = option({}, "the same of API, broker and controller", metavar="NAME=VALUE")
    silent_s: float = option(15.0, "how long an actor may be silent before it is replaced", metavar="SECONDS", gt=0)
    check_s: float = option(1.0, "interval of the controller's look at queues and actors", metavar="SECONDS", gt=0)

    @field_validator("executor_labels", "scorer_labels", "front_labels")
    @classmethod
    def _plain(cls, labels: dict[str, str]) -> dict[str, str]:
        for name, value in labels.items():
            if not (LABEL.fullmatch(name) and LABEL.fullmatch(value)):
                raise ValueError(f"{name}={value}: a label is NAME=VALUE of letters, digits, and . _ / -")
        return labels

    @field_validator("executor_resources", "scorer_resources", "front_resources")
    @classmethod
    def _custom(cls, resources: dict[str, float] | None) -> dict[str, float] | None:
        for name, amount in (resources or {}).items():
            if name in ("CPU", "GPU", "memory", "object_store_memory") or amount <= 0:
                raise ValueError(f"{name}={amount:g}: a custom resource of the cluster and an amount above 0")
        return resources

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_executors > self.max_executors:
            raise ValueError(f"min_executors {self.min_executors} is more than max_executors {self.max_executors}")
        return self

    @property
    def min_actors(self) -> int:
        """Executing actors that there are at least."""
        return -(-self.min_executors // self.actor_cpus)

    @property
    def max_actors(self) -> int:
        """Executing actors that there are at most."""
        return -(-self.max_executors // self.actor_cpus)

    @property
    def front_asks(self) -> dict[str, float]:
        """Resources of API, broker and controller."""
        if self.front_resources is None and not self.front_labels:
            return {HEAD_NODE: 0.001}
        return self.front_resources or {}


def read_options(values: Mapping[str, Any]) -> DeploymentOptions:
    """Options by name, typed or as text. Raises UsageError, which names the flag."""
    try:
        return DeploymentOptions.model_validate(values)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            flag = f"--{str(problem['loc'][0]).replace('_', '-')}: " if problem["loc"] else ""
            problems.append(f"{flag}{problem['msg'].removeprefix('Value error, ')}")
        raise UsageError("; ".join(problems)) from None


def read_pairs(flag: str, words: list[str]) -> dict[str, str]:
    """`["pool=cpu"]` → `{"pool": "cpu"}`. Raises UsageError."""
    pairs = {}
    for word in words:
        name, _, value = word.partition("=")
        if not (name and value):
            raise UsageError(f"{flag} {word}: expected NAME=VALUE")
        if name in pairs:
            raise UsageError(f"{flag} {word}: {name} is given twice")
        pairs[name] = value
    return pairs
