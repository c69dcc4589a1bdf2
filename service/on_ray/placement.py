"""What each kind of actor asks Ray for, and what is missing if no node of the cluster has it. Functions of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from service.on_ray.options import DeploymentOptions
from service.settings import Settings

Role = Literal["broker", "api", "scorer", "executor"]


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A live node: all of its resources, whoever uses them, and its labels."""

    id: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placement:
    """What an actor needs of its node.

    Attributes:
        cpus, gpus: CPUs and GPUs, which are then the actor's alone as far as Ray counts them.
        resources: custom resources.
        labels: labels that the node must have.
        spread: whether actors of this kind are better apart, so that one node takes few of them along.
    """

    cpus: float = 0.0
    gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    spread: bool = False

    def fits(self, node: ClusterNode) -> bool:
        """Whether the node has all of it, if nobody else used any."""
        needs = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        enough = all(node.resources.get(name, 0.0) >= amount for name, amount in needs.items() if amount > 0)
        return enough and all(node.labels.get(name) == value for name, value in self.labels.items())

    def options(self, nodes: Sequence[ClusterNode]) -> dict[str, Any]:
        """Options of a Ray actor.

        Ray's default scheduling leaves nodes with a GPU to those who need it; spreading does not. So actors without a
        GPU are spread only where that makes no difference.
        """
        places = [node for node in nodes if self.fits(node)]
        mixed = len({node.resources.get("GPU", 0.0) > 0 for node in places}) > 1
        options: dict[str, Any] = {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "resources": dict(self.resources),
            "scheduling_strategy": "SPREAD" if self.spread and not (mixed and self.gpus == 0) else "DEFAULT",
        }
        if self.labels:
            options["label_selector"] = dict(self.labels)
        return options

    def missing(self, nodes: Sequence[ClusterNode]) -> str | None:
        """What no live node has, in words; None if one has it all."""
        if any(self.fits(node) for node in nodes):
            return None
        most: dict[str, float] = {}
        for node in nodes:
            for name, amount in node.resources.items():
                most[name] = max(most.get(name, 0.0), amount)
        return f"no node of the cluster has {self}; the most that a node has is " + ", ".join(
            f"{name} {most.get(name, 0.0):g}" for name in ("CPU", "GPU", *self.resources)
        )

    def __str__(self) -> str:
        amounts = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        asked = [f"{name} {amount:g}" for name, amount in amounts.items() if amount > 0]
        asked += [f"the label {name}={value}" for name, value in self.labels.items()]
        return ", ".join(asked) or "anything"


def placements(options: DeploymentOptions, settings: Settings, nodes: Sequence[ClusterNode]) -> dict[Role, Placement]:
    """What the actors of a deployment ask for."""
    front = Placement(resources=options.front_asks, labels=options.front_labels)
    gpus = options.scorer_gpus
    if gpus is None:
        gpus = 0.0 if settings.device == "cpu" or not has_gpu(nodes) else 1.0
    return {
        "broker": front,
        "api": front,
        "scorer": Placement(
            cpus=float(settings.torch_threads),
            gpus=gpus,
            resources=options.scorer_resources,
            labels=options.scorer_labels,
            spread=True,
        ),
        "executor": Placement(
            cpus=float(options.actor_cpus),
            resources=options.executor_resources,
            labels=options.executor_labels,
            spread=True,
        ),
    }


def has_gpu(nodes: Sequence[ClusterNode]) -> bool:
    return any(node.resources.get("GPU", 0.0) > 0 for node in nodes)


def read_nodes(told: Sequence[Mapping[str, Any]]) -> list[ClusterNode]:
    """The live nodes of what `ray.nodes()` answers."""
    return [
        ClusterNode(str(node["NodeID"]), dict(node["Resources"]), dict(node.get("Labels") or {}))
        for node in told
        if node["Alive"]
    ]
