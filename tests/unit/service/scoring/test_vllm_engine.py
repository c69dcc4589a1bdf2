"""The engine `vllm` against a server of its wire schema (support/pooling.py): right scores, or none."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import HostLacks, UsageError
from service.scoring.encoder import Encoded, Encoder
from service.scoring.engine import EngineUnavailable
from service.scoring.factory import open_engine
from service.scoring.fault_isolation import score_apart
from service.scoring.reward_model import Calibration, RewardModel
from service.scoring.scheduler import ScoreFailure
from service.scoring.vllm import VllmEngine
from service.scoring.vllm_server import environ
from service.settings import Settings
from support.checkpoints import checkpoint, write_golden, write_model
from support.pooling import PoolingServer

Opened = Callable[..., VllmEngine]
GROUP = ["return a", "return a + b", "pass"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = checkpoint(tmp_path_factory.mktemp("served"), golden="golden.jsonl", calibration=Calibration(2.0, -1.0))
    return write_golden(made)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shape and tokenizer with other weights."""
    made = checkpoint(tmp_path_factory.mktemp("other"))
    write_model(made, seed=8)
    return made


@pytest.fixture
def server(folder: Path) -> Iterator[PoolingServer]:
    with PoolingServer(folder) as one:
        yield one


def settings(url: str, **changes: Any) -> Settings:
    return Settings(engine="vllm", vllm_url={"default": url}, vllm_start_s=changes.pop("start_s", 0.5), **changes)


@pytest.fixture
def opened() -> Iterator[Opened]:
    with contextlib.ExitStack() as ends:

        def make(folder: Path, server: PoolingServer, **changes: Any) -> VllmEngine:
            engine, parity = open_engine("default", str(folder), settings(server.url, **changes))
            ends.callback(engine.close)
            assert parity.ok
            assert parity.n == 3
            assert isinstance(engine, VllmEngine)
            return engine

        yield make


def encoded(engine: Any, prompt: str = "add two numbers", completions: list[str] = GROUP) -> list[Encoded]:
    return [one for one in engine.encode_group(prompt, completions) if isinstance(one, Encoded)]


def forget(engine: VllmEngine) -> None:
    """As if a while had passed since the last answer."""
    engine._proven_at = -math.inf


def test_scores_are_raw_logits_and_those_of_the_transformers_engine(
    opened: Opened, folder: Path, server: PoolingServer
) -> None:
    engine, ours = opened(folder, server), RewardModel.load(folder)
    batch = encoded(engine)

    assert engine.score(batch) == pytest.approx(ours.score(batch), abs=1e-5)
    assert server.asked[-1]["use_activation"] is False
    assert server.asked[-1]["input"] == [list(one.ids) for one in batch]
    assert (engine.revision, engine.parameters) == (ours.revision, ours.parameters)
    assert engine.pass_probability(0.3) == ours.pass_probability(0.3)
    assert (engine.engine, ours.engine.split()[0]) == ("vllm 0.0-test", "transformers")


def test_a_server_of_other_weights_is_refused_at_start(
    opened: Opened, folder: Path, other: Path, server: PoolingServer
) -> None:
    server.load(other)
    with pytest.raises(HostLacks, match=r"differ from its golden set by .* not served"):
        opened(folder, server)


def test_a_server_that_applies_its_sigmoid_whatever_it_is_told_is_refused(
    opened: Opened, folder: Path, server: PoolingServer
) -> None:
    def squash(answer: Any) -> Any:
        for row in answer["data"]:
            row["data"] = [1 / (1 + math.exp(-row["data"][0]))]
        return answer

    server.broken = squash
    with pytest.raises(HostLacks, match="differ from its golden set"):
        opened(folder, server)


def test_a_checkpoint_without_a_golden_set_is_refused(opened: Opened, tmp_path: Path, server: PoolingServer) -> None:
    with pytest.raises(UsageError, match="no golden set"):
        opened(checkpoint(tmp_path), server)


def test_a_process_reward_model_is_refused(opened: Opened, tmp_path: Path, server: PoolingServer) -> None:
    steps = {"pooled": "steps", "steps": {"token": "<|end|>", "split": "\n"}}
    with pytest.raises(UsageError, match="process reward model"):
        opened(checkpoint(tmp_path, golden="golden.jsonl", **steps), server)


def test_a_server_that_takes_shorter_texts_is_refused(opened: Opened, folder: Path, server: PoolingServer) -> None:
    server.max_model_len = 128
    with pytest.raises(UsageError, match="--max-model-len 256"):
        opened(folder, server)


def test_nobody_at_the_url_is_said_after_the_time_to_start(folder: Path, server: PoolingServer) -> None:
    server.__exit__(None, None, None)
    with pytest.raises(HostLacks, match=r"no vLLM server within 0.5 s: .*does not answer"):
        open_engine("default", str(folder), settings(server.url))


def test_a_key_is_sent_and_a_wrong_one_is_told_at_once(opened: Opened, folder: Path) -> None:
    with PoolingServer(folder, key="right") as server:
        opened(folder, server, vllm_api_key="right")
        with pytest.raises(HostLacks, match="401"):
            opened(folder, server, vllm_api_key="wrong", start_s=60.0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"engine": "vllm"}, "needs --vllm-url"),
        ({"engine": "vllm", "deterministic": True}, "--deterministic"),
        ({"engine": "vllm", "vllm_python": Path("/nowhere/python")}, "not an executable interpreter"),
    ],
)
def test_settings_that_cannot_be_are_refused(folder: Path, changes: Any, told: str) -> None:
    with pytest.raises((UsageError, HostLacks), match=told):
        open_engine("default", str(folder), Settings(**changes))


def test_a_server_that_is_down_fails_the_batch_as_ours_and_its_return_is_noticed(opened: Opened, folder: Path) -> None:
    with PoolingServer(folder) as server:
        engine = opened(folder, server)
        batch = encoded(engine)
        right = engine.score(batch)
        server.hang_up()

    outcome = score_apart(engine.score, batch)
    assert [one.code for one in outcome.scores if isinstance(one, ScoreFailure) and one.is_server_error] == [
        "engine_unavailable"
    ] * 3
    with PoolingServer(folder, port=server.port) as again:
        assert engine.score(batch) == right
        assert len(again.asked[0]["input"]) == 1 + len(batch), "a golden row goes first, to a server that was away"
        assert engine.score(batch) == right
        assert len(again.asked[1]["input"]) == len(batch)


def test_another_model_that_came_meanwhile_gives_no_number(
    opened: Opened, folder: Path, other: Path, server: PoolingServer
) -> None:
    engine = opened(folder, server)
    batch = encoded(engine)
    right = engine.score(batch)
    server.load(other)
    forget(engine)
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match="another model"):
            engine.score(batch)
    server.load(folder)
    assert engine.score(batch) == right


def dropped(answer: Any) -> Any:
    return answer | {"data": answer["data"][1:]}


def vectors(answer: Any) -> Any:
    return answer | {"data": [row | {"data": [0.1, 0.2]} for row in answer["data"]]}


def nothing(answer: Any) -> Any:
    return {"hello": "world"}


def words(answer: Any) -> Any:
    return answer | {"data": [row | {"data": ["0.5"]} for row in answer["data"]]}


@pytest.mark.parametrize("broken", [500, 503, 429, 404, 401, dropped, vectors, nothing, words])
def test_what_is_no_score_never_becomes_one(opened: Opened, folder: Path, server: PoolingServer, broken: Any) -> None:
    engine = opened(folder, server)
    server.broken = broken
    with pytest.raises(EngineUnavailable):
        engine.score(encoded(engine))


def test_a_number_that_is_none_is_not_handed_out(opened: Opened, folder: Path, server: PoolingServer) -> None:
    engine = opened(folder, server)
    batch = encoded(engine)
    server.broken = lambda answer: answer | {"data": [row | {"data": [math.nan]} for row in answer["data"]]}
    outcome = score_apart(engine.score, batch)
    assert all(isinstance(one, ScoreFailure) and one.is_server_error for one in outcome.scores)


def test_scores_follow_the_index_and_not_the_order_of_the_answer(
    opened: Opened, folder: Path, server: PoolingServer
) -> None:
    engine = opened(folder, server)
    batch = encoded(engine)
    right = engine.score(batch)
    server.broken = lambda answer: answer | {"data": answer["data"][::-1]}
    assert engine.score(batch) == right


def test_an_input_that_vllm_refuses_is_invalid_alone(opened: Opened, folder: Path, server: PoolingServer) -> None:
    engine = opened(folder, server)
    batch = encoded(engine)
    poison = Encoded((5, 99_999), 0, truncated=False)
    outcome = score_apart(engine.score, [batch[0], poison, batch[1]])

    first, refused, last = outcome.scores
    assert [first, last] == engine.score(batch[:2])
    assert isinstance(refused, ScoreFailure)
    assert (refused.code, refused.is_server_error) == ("invalid", False)


# --- a server of our own ----------------------------------------------------------------------------------------------

# An interpreter's stand-in: takes vLLM's arguments and serves support/pooling.py on their Unix socket.
CHILD = """\
#!{python}
import sys
sys.path.insert(0, {tests!r})
from support.pooling_child import main
sys.exit(main(sys.argv))
"""


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    import sys

    path = tmp_path / "python"
    path.write_text(CHILD.format(python=sys.executable, tests=str(Path(__file__).parents[3])))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_server_of_our_own_is_started_survived_and_ended(folder: Path, interpreter: Path) -> None:
    made = Settings(engine="vllm", vllm_python=interpreter, vllm_start_s=60.0, torch_threads=1)
    engine, _ = open_engine("default", str(folder), made)
    assert isinstance(engine, VllmEngine)
    assert engine._server is not None
    home = engine._server.socket.parent
    try:
        batch = encoded(engine)
        right = engine.score(batch)
        process = engine._server._process
        assert process is not None
        process.kill()
        process.wait()
        assert engine.score(batch) == right, "the batch has started it again"
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
    finally:
        engine.close()
    assert not home.exists()
    assert not engine._server.alive


def test_a_server_that_dies_at_start_says_its_last_words(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "python"
    path.write_text("#!/bin/sh\necho no module named vllm\nexit 1\n")
    path.chmod(0o755)
    with pytest.raises(HostLacks, match=r"exited with 1(.|\n)*no module named vllm"):
        open_engine("default", str(folder), Settings(engine="vllm", vllm_python=path))


def test_no_setting_of_ours_reaches_the_server_and_vllms_own_do() -> None:
    given = environ({"PLAUDIT_API_KEY": "secret", "VLLM_CPU_KVCACHE_SPACE": "2", "OMP_NUM_THREADS": "4"}, 1)
    assert "secret" not in given.values()
    assert (given["VLLM_CPU_KVCACHE_SPACE"], given["OMP_NUM_THREADS"]) == ("2", "4")


def test_the_golden_row_that_proves_a_server_is_the_shortest(
    opened: Opened, folder: Path, server: PoolingServer
) -> None:
    engine = opened(folder, server)
    rows = [json.loads(line) for line in (folder / "golden.jsonl").read_text().splitlines()]
    forget(engine)
    engine.score(encoded(engine))
    assert len(server.asked[-1]["input"][0]) == min(row["tokens"] for row in rows)
    assert isinstance(engine.encoder, Encoder)


def test_a_vllm_in_this_environment_needs_no_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_golden(checkpoint(tmp_path, golden="golden.jsonl"))
    with pytest.raises(UsageError, match=r"--vllm-url default=URL, or a vLLM .*--vllm-python, or the package here"):
        VllmEngine.open("default", str(folder), Settings(engine="vllm"))

    class Started(Exception):
        """Carries the interpreter that a server would be started with."""

    def start(python: Path, *_: Any) -> None:
        raise Started(python)

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: name == "vllm" or find(name, *more))
    monkeypatch.setattr("service.scoring.vllm.VllmServer", start)
    for given, python in ((None, Path(sys.executable)), (Path("/other/python"), Path("/other/python"))):
        with pytest.raises(Started) as told:
            VllmEngine.open("default", str(folder), Settings(engine="vllm", vllm_python=given))
        assert told.value.args == (python,)
