"""`plaudit ray`: what it prints, and what it rejects before it looks for a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import HostLacks, UsageError
from service import cli, logs, on_ray
from service.on_ray import commands, deployment
from service.settings import Settings


@pytest.fixture(autouse=True)
def own_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands send the logs of their process to stderr; this process keeps its own."""
    monkeypatch.setattr(logs, "configure", lambda level, form="auto": None)


STATE: dict[str, Any] = {
    "name": "plaudit",
    "phase": "ready",
    "url": "http://10.0.0.1:7001",
    "executors": {"ready": 8, "actors": 3, "min": 4, "max": 64},
    "isolation": ["strong"],
    "queue": {"depth": 12, "oldest_s": 0.25},
    "actors": [{"actor": "executor-1", "phase": "ready", "host": "node-a", "node": "0a0559387426" * 4, "pids": [1]}],
    "problems": ["executor: 1 not placed: waits for a node with CPU 4 to spare"],
    "events": [],
}


def test_status_is_readable() -> None:
    assert commands.as_text(STATE | {"api_key": "k"}).splitlines() == [
        "ray://plaudit  ready  http://10.0.0.1:7001",
        "key        k",
        "executors  8 ready in 3 actors, of 4 to 64; isolation strong",
        "queue      12 programs waiting or running, the oldest for 0.2 s",
        "executor-1     ready                node-a 0a0559387426",
        "problem    executor: 1 not placed: waits for a node with CPU 4 to spare",
    ]


def test_status_before_anything_is_known() -> None:
    empty = {"executors": {}, "isolation": [], "queue": None, "actors": [], "problems": []}
    state = {"name": "x", "phase": "starting", "url": None, **empty}
    assert commands.as_text(state) == "ray://x  starting  no API yet"


def test_help_has_examples_and_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["ray", "up", "--help"])
    told = capsys.readouterr().out
    assert ended.value.code == 0
    for name in on_ray.DeploymentOptions.model_fields:
        assert f"--{name.replace('_', '-')}" in told
    assert "plaudit ray up --min-executors 8 --max-executors 64" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--uds", "/tmp/s"], "--uds /tmp/s: the API of a deployment is reached over the network"),
        (["--isolation-accept", "none"], "--isolation-accept none runs programs without isolation"),
        (["--redis-url", "unix:///tmp/redis"], "--redis-url unix://: other nodes cannot reach a socket"),
        (["--executors", "4"], "--executors 4: a deployment takes --min-executors and --max-executors"),
        (["--min-executors", "9", "--max-executors", "8"], "min_executors 9 is more than max_executors 8"),
        (["--executor-labels", "pool"], "--executor-labels pool: expected NAME=VALUE"),
        (["--wait-s", "soon"], "--wait-s soon: expected a number of seconds above 0"),
        (["--runtime-env", "/nowhere.json"], "--runtime-env /nowhere.json: "),
    ],
)
def test_what_cannot_be_is_rejected_by_name(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ray", "up", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_runtime_environment_is_an_object(tmp_path: Path) -> None:
    path = tmp_path / "env.json"
    path.write_text(json.dumps(["pip"]))
    with pytest.raises(UsageError, match="expected a JSON object"):
        commands._runtime_env(str(path))
    path.write_text(json.dumps({"py_executable": "/opt/plaudit/bin/python"}))
    assert commands._runtime_env(str(path)) == {"py_executable": "/opt/plaudit/bin/python"}


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(deployment, "find_spec", lambda name: None)
    for words in (["up"], ["status"], ["down"]):
        assert cli.main(["ray", *words]) == 3
        assert "pip install 'plaudit-server[ray]'" in capsys.readouterr().err


def test_several_embedded_brokers_are_rejected() -> None:
    with pytest.raises(UsageError, match="--shards 2: a deployment starts one broker"):
        on_ray.up(settings=Settings(shards=2))


def test_an_address_where_nothing_listens_is_named_at_once() -> None:
    with pytest.raises(HostLacks, match=r"--ray-address 127.0.0.1:1: no Ray cluster answers: .*refused"):
        deployment._knock("127.0.0.1:1")
    for address in ("auto", "local"):  # Ray's own words
        deployment._knock(address)
