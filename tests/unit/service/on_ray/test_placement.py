"""What actors ask Ray for."""

from __future__ import annotations

from typing import Any

import pytest

from plaudit.errors import UsageError
from service.on_ray.options import HEAD_NODE, DeploymentOptions, read_options, read_pairs
from service.on_ray.placement import ClusterNode, Placement, placements, read_nodes
from service.settings import Settings

CPU_NODE = ClusterNode("c", {"CPU": 8.0}, {"pool": "cpu"})
GPU_NODE = ClusterNode("g", {"CPU": 64.0, "GPU": 8.0}, {"pool": "gpu"})


def asked(role: Any, nodes: list[ClusterNode], settings: dict[str, Any] | None = None, **options: Any) -> Placement:
    return placements(DeploymentOptions(**options), Settings(**settings or {}), nodes)[role]


def test_an_executing_actor_asks_for_its_cpus_resources_and_labels() -> None:
    placement = asked("executor", [], actor_cpus=8, executor_resources={"fast": 0.5}, executor_labels={"pool": "cpu"})
    options = placement.options([CPU_NODE])
    assert options["num_cpus"] == 8
    assert options["num_gpus"] == 0
    assert options["resources"] == {"fast": 0.5}
    assert options["label_selector"] == {"pool": "cpu"}


def test_a_scorer_asks_for_one_gpu_where_the_cluster_has_any() -> None:
    assert asked("scorer", [CPU_NODE, GPU_NODE]).gpus == 1.0
    assert asked("scorer", [CPU_NODE]).gpus == 0.0
    assert asked("scorer", [GPU_NODE], {"device": "cpu"}).gpus == 0.0
    assert asked("scorer", [CPU_NODE], scorer_gpus=0.5).gpus == 0.5
    assert asked("scorer", [GPU_NODE], {"torch_threads": 3}).cpus == 3.0


@pytest.mark.parametrize("role", ["api", "broker"])
def test_api_and_broker_are_on_the_head_unless_told_otherwise(role: str) -> None:
    assert asked(role, []).resources == {HEAD_NODE: 0.001}
    assert asked(role, [], front_resources={"front": 1.0}).resources == {"front": 1.0}
    elsewhere = asked(role, [], front_labels={"pool": "cpu"})
    assert (elsewhere.resources, elsewhere.labels) == ({}, {"pool": "cpu"})
    assert asked(role, []).cpus == 0.0  # a head that is to run nothing has no CPUs


def test_executors_are_spread_unless_that_would_take_nodes_with_gpus() -> None:
    executor = asked("executor", [])
    assert executor.options([CPU_NODE, CPU_NODE])["scheduling_strategy"] == "SPREAD"
    assert executor.options([GPU_NODE, GPU_NODE])["scheduling_strategy"] == "SPREAD"
    assert executor.options([CPU_NODE, GPU_NODE])["scheduling_strategy"] == "DEFAULT"
    labelled = asked("executor", [], executor_labels={"pool": "cpu"})
    assert labelled.options([CPU_NODE, GPU_NODE])["scheduling_strategy"] == "SPREAD"


def test_what_no_node_has_is_named_with_what_there_is() -> None:
    assert asked("executor", [], actor_cpus=8).missing([CPU_NODE]) is None
    told = asked("executor", [], actor_cpus=16, executor_labels={"pool": "x"}).missing([CPU_NODE, GPU_NODE])
    assert told == ("no node of the cluster has CPU 16, the label pool=x; the most that a node has is CPU 64, GPU 8")
    assert Placement(cpus=1.0).missing([]) is not None


def test_dead_nodes_are_no_places() -> None:
    told = [
        {"NodeID": "a", "Alive": True, "Resources": {"CPU": 2.0}, "Labels": {"x": "y"}},
        {"NodeID": "b", "Alive": False, "Resources": {"CPU": 64.0}},
    ]
    assert read_nodes(told) == [ClusterNode("a", {"CPU": 2.0}, {"x": "y"})]


def test_numbers_of_executors_become_whole_actors() -> None:
    options = DeploymentOptions(actor_cpus=4, min_executors=5, max_executors=16)
    assert (options.min_actors, options.max_actors) == (2, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_executors": 9, "max_executors": 4}, "min_executors 9 is more than max_executors 4"),
        ({"actor_cpus": "0"}, "--actor-cpus: Input should be greater than or equal to 1"),
        ({"name": "a/b"}, "--name: String should match pattern"),
        ({"executor_labels": {"pool": "!gpu"}}, "--executor-labels: pool=!gpu: a label is NAME=VALUE"),
        ({"scorer_resources": {"GPU": 1.0}}, "--scorer-resources: GPU=1: a custom resource of the cluster"),
        ({"front_resources": {"front": "-1"}}, "--front-resources: front=-1: a custom resource"),
        ({"executor_resources": {"x": "much"}}, "--executor-resources: Input should be a valid number"),
    ],
)
def test_a_wrong_option_is_named_with_its_limit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_options(values)
    assert message in caught.value.detail


def test_pairs_name_the_flag_that_is_wrong() -> None:
    assert read_pairs("--executor-labels", ["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}
    for words, message in ((["a"], "--executor-labels a: expected NAME=VALUE"), (["a=1", "a=2"], "a is given twice")):
        with pytest.raises(UsageError, match=message):
            read_pairs("--executor-labels", words)
