"""Our misfortunes, as each dialect's client meets them: never a silent zero, never a hang.

Two tables of `docs/dialects.md` are made here, by asking: what goes over the wire when a fault lasts, and what the
clients end up with. They are written anew by `pytest tests/conformance/test_faults.py --rewrite`, and compared
otherwise. The desk is scripted; everything from the socket to it is real, and so are the clients in bold.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.dialects import dialect
from service.api.dialects.table import DIALECTS
from service.errors import BrokerUnavailable, NoWorker, Overloaded, PlauditError, WouldMissDeadline
from support.pages import ROOT
from support.scripted import Scripted, Word, ran

PAGE = ROOT / "docs" / "dialects.md"
LASTING: dict[str, Word] = {
    "queue full": Overloaded("by the script", retry_after_s=0.1),
    "no worker": NoWorker("by the script", retry_after_s=0.1),
    "Redis gone": BrokerUnavailable("by the script", retry_after_s=0.1),
    "too long a line": WouldMissDeadline("by the script", retry_after_s=0.1),
    "deadline passed": "timeout_queue",
    "poisoned": "infra_error",
}
SLOW_S = 20  # what a busy machine may need until it looks at the clock
PATIENCE_MS = 900  # instead of each dialect's own deadline
HURRY_MS = 250  # for clients that try again many times

RUN = {"code": "print(1)", "language": "python"}
TESTS = ["assert f() == 1"]
TEXT = "```python\ndef f():\n    return 1\n```"
MESSAGE = {"type": "message", "content": [{"type": "output_text", "text": TEXT}]}
PROBES: dict[str, tuple[str, dict[str, Any]]] = {
    "sandbox_fusion": ("/run_code", RUN),
    "openrlhf": ("/get_reward", {"query": [TEXT], "prompts": [""], "labels": [TESTS]}),
    "slime": ("/slime", {"prompt": "p", "response": TEXT, "label": TESTS}),
    "vllm": ("/classify", {"input": "text"}),
    "rerank": ("/v2/rerank", {"query": "q", "documents": ["d"]}),
    "open_r1": ("/execute_batch", {"scripts": ["1"], "languages": ["python"], "timeout": 1, "request_timeout": 1}),
    "nemo_gym": ("/verify", {"responses_create_params": {}, "response": {"output": [MESSAGE]},
                             "verifier_metadata": {"unit_tests": TESTS}}),
    "open_instruct": ("/test_program", {"program": "def f():\n    return 1", "tests": TESTS}),
    "llama_factory": ("/v1/score/evaluation", {"model": "m", "messages": ["text"]}),
    "piston": ("/api/v2/execute", {"language": "python", "version": "*", "files": [{"content": "print(1)"}]}),
}  # fmt: skip
NOT_PROBED = {"roll"}  # a durable request: its faults are those of the ledger, tested there


def told(name: str, answer: httpx.Response) -> str:
    """An answer in a table's words."""
    if answer.status_code != 200:
        after = " + Retry-After" if "retry-after" in answer.headers else ""
        return f"{answer.status_code}{after}"
    body = answer.json()
    if name == "sandbox_fusion":
        return "200" if body["status"] == "Success" else f"200 `{body['status']}`"
    if name == "openrlhf":
        return "200" if body["extra_logs"]["reward_ok"] == [1.0] else "200, fallback reward, `reward_ok` 0"
    if name == "open_r1":
        return "200, null" if body[0]["execution"] is None and body[0]["text"] is None else "200"
    if name == "nemo_gym" and "_ng_failure_class" in body:
        return "200, 0 + `_ng_failure_class`"
    if name == "piston" and body["run"]["signal"]:
        return f"200, killed by {body['run']['signal']}"
    return "200"


def ask(scripted: Scripted, name: str) -> httpx.Response:
    path, body = PROBES[name]
    headers = {"X-Deadline-Ms": str(PATIENCE_MS)}
    return httpx.post(f"{scripted.url}{path}", json=body, headers=headers, timeout=60, trust_env=False)


def over_the_wire(scripted: Scripted, name: str) -> list[str]:
    cells = []
    for word in LASTING.values():
        scripted.says(word)
        began = time.monotonic()
        cells.append(told(name, ask(scripted, name)))
        assert time.monotonic() - began < PATIENCE_MS / 1000 + SLOW_S, "nobody hangs"
    return cells


# --- clients ---------------------------------------------------------------------------------------------------------

Client = Callable[[Scripted], Any]


def sandbox_fusion_package(scripted: Scripted) -> Any:
    package = pytest.importorskip("sandbox_fusion")
    request = package.RunCodeRequest(**RUN)
    return package.run_code(request, endpoint=scripted.url, max_attempts=2).run_result.stdout


def cohere_package(scripted: Scripted) -> Any:
    cohere = pytest.importorskip("cohere")
    with httpx.Client(trust_env=False) as http:
        client = cohere.ClientV2("key", base_url=scripted.url, httpx_client=http)
        return client.rerank(model="m", query="q", documents=["d"]).results[0].index


def tries(number: int, then: Callable[[httpx.Response], Any], name: str, *, retries: Callable[[int], bool],
          gives_up: Any) -> Client:  # fmt: skip
    """A client by its rule: so many tries while `retries(status)`; after the last, `gives_up` (an exception or not)."""

    def client(scripted: Scripted) -> Any:
        path, body = PROBES[name]
        for _ in range(number):
            answer = httpx.post(f"{scripted.url}{path}", json=body, timeout=60, trust_env=False)
            if answer.status_code < 300:
                return then(answer)
            if not retries(answer.status_code):
                break
        if isinstance(gives_up, type):
            raise gives_up(f"HTTP {answer.status_code}")
        return gives_up

    return client


def always(status: int) -> bool:
    return True


BY_RULE: dict[str, tuple[Client, Any]] = {
    "slime": (tries(10, lambda answer: answer.json(), "slime", retries=always, gives_up=RuntimeError), 1.0),
    "open-r1 (E2B)": (tries(1, lambda answer: answer.json()[0]["execution"]["results"][0]["text"], "open_r1",
                            retries=always, gives_up=RuntimeError), "1"),
    "NeMo-Gym": (tries(3, lambda answer: (answer.json()["reward"], answer.json().get("_ng_failure_class")), "nemo_gym",
                       retries=lambda status: status >= 500 or status in (408, 429), gives_up=RuntimeError),
                 (1.0, None)),
    "open-instruct": (tries(2, lambda answer: 1.0, "open_instruct",
                            retries=lambda status: status in (500, 502, 503, 504), gives_up=0.0), 1.0),
    "LLaMA-Factory": (tries(1, lambda answer: answer.json()["scores"], "llama_factory", retries=always,
                            gives_up=KeyError), [0.5]),
    "Piston client": (tries(6, lambda answer: answer.json()["run"]["stdout"], "piston", retries=always,
                            gives_up="failed test"), "1\n"),
}  # fmt: skip


@pytest.fixture
def clients(verl_sandbox: Any, verl_reward_loop: Any, openrlhf_agent: Any) -> dict[str, tuple[Client, Any]]:
    """Everybody with what is right, by the name in the table; those that are other people's code in bold."""

    def verl(scripted: Scripted) -> Any:
        completion = "```python\nprint(1)\n```"
        tests = {"inputs": [""], "outputs": ["1"]}
        value, metadata = verl_sandbox.compute_score(f"{scripted.url}/run_code", threading.Semaphore(1), 1024,
                                                     completion, tests, timeout=1)  # fmt: skip
        return value if metadata[0]["status"] == "success" else f"{value:g}, {metadata[0]['status']}"

    def loop(scripted: Scripted) -> Any:
        worker = verl_reward_loop(scripted.address, "vllm")
        return asyncio.run(worker.compute_score_disrm("text"))["reward_score"]

    def openrlhf(scripted: Scripted) -> Any:
        executor = openrlhf_agent.SingleTurnAgentExecutor(f"{scripted.url}/get_reward")
        fetched: Awaitable[Any] = executor._fetch_rewards_via_http([TEXT], [""], [TESTS])
        (one,) = asyncio.run(_awaited(fetched))
        return one["rewards"] if one["extra_logs"]["reward_ok"] == [1.0] else f"{one['rewards'][0]:g}, `reward_ok` 0"

    return {"**verl sandbox**": (verl, 1.0), "**verl reward loop**": (loop, 0.5), "**OpenRLHF**": (openrlhf, [1.0]),
            "**sandbox-fusion**": (sandbox_fusion_package, "1\n"), "**cohere**": (cohere_package, 0),
            **BY_RULE}  # fmt: skip


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


def ends_with(client: Client, right: Any, scripted: Scripted, *words: Word) -> str:
    """What the trainer sees, in a table's words."""
    scripted.says(*words)
    try:
        value = client(scripted)
    except Exception as error:  # noqa: BLE001 - whatever the client raises is what its trainer sees
        return "null" if isinstance(error, TypeError) else f"raises `{type(error).__name__}`"
    if value == right:
        return "right"
    return " ".join(f"`{part}`" for part in value) if isinstance(value, tuple) else str(value).strip() or "failed test"


# --- the tables ------------------------------------------------------------------------------------------------------


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def compare(name: str, made: str, request: pytest.FixtureRequest) -> None:
    """The page's table is the one just made, or becomes it."""
    text = PAGE.read_text("utf-8")
    mark = re.compile(rf"(<!-- measured: {name} -->\n)(.*?)(\n<!-- end -->)", re.DOTALL)
    found = mark.search(text)
    assert found is not None
    if request.config.getoption("--rewrite"):
        PAGE.write_text(mark.sub(lambda old: f"{old[1]}{made}{old[3]}", text), "utf-8")
    else:
        assert made == found[2], "run: pytest tests/conformance/test_faults.py --rewrite"


def test_every_dialect_is_probed() -> None:
    assert set(PROBES) | NOT_PROBED == set(DIALECTS)


def test_what_goes_over_the_wire(scripted: Scripted, request: pytest.FixtureRequest) -> None:
    rows = [[f"`{PROBES[name][0]}`", *over_the_wire(scripted, name)] for name in DIALECTS if name in PROBES]
    compare("wire", table(["endpoint", *LASTING], rows), request)
    for name, row in zip(PROBES, rows, strict=True):
        sheds = DIALECTS[name].sheds
        assert sheds is None or row[1].startswith(str(sheds))


@pytest.mark.timeout(300)
def test_what_clients_end_up_with(scripted: Scripted, clients: dict[str, Client], request: pytest.FixtureRequest,
                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    real = dialect.deadline

    def hurried(settings: Any, body_ms: int | None, header: str | None) -> int:
        return real(settings, HURRY_MS, header)

    monkeypatch.setattr(time, "sleep", lambda seconds, wait=time.sleep: wait(min(seconds, 0.05)))
    fault = NoWorker("by the script", retry_after_s=0.1)
    rows = []
    for name, (client, right) in clients.items():
        monkeypatch.setattr(dialect, "deadline", real)
        passing = ends_with(client, right, scripted, fault, fault, "ok")
        monkeypatch.setattr(dialect, "deadline", hurried)
        lasting: list[Word] = [fault, "timeout_queue", "infra_error"]
        rows.append([name, passing, *(ends_with(client, right, scripted, word) for word in lasting)])
    compare("clients", table(["client", "an outage that passes", "one that lasts", "deadline passed", "poisoned"],
                             rows), request)  # fmt: skip
    assert {row[1] for row in rows} == {"right"}


# --- what programs print, and what is no text ------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"x" * (1 << 20), b"\xff\xfe caf\xc3\xa9 \x00"], ids=["1 MB", "not UTF-8"])
def test_whatever_a_program_prints_comes_back(scripted: Scripted, data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    scripted.says(lambda order: ran(data))
    assert ask(scripted, "sandbox_fusion").json()["run_result"]["stdout"] == text
    assert ask(scripted, "piston").json()["run"]["stdout"] == text
    (item,) = ask(scripted, "open_r1").json()
    assert item["execution"]["error"]["name"] == "ScriptEnded"  # it is no notebook's line, whoever printed it


@pytest.mark.parametrize("name", PROBES)
def test_a_body_that_is_no_text_is_the_caller_s(scripted: Scripted, name: str) -> None:
    headers = {"Content-Type": "application/json"}
    for content in (b'{"a": "\xff"}', b"{", b"[]", b"null"):
        answer = httpx.post(f"{scripted.url}{PROBES[name][0]}", content=content, headers=headers, trust_env=False)
        assert answer.status_code in (400, 422)


@pytest.mark.parametrize("name", PROBES)
def test_unknown_fields_are_nobody_s_business(scripted: Scripted, name: str) -> None:
    path, body = PROBES[name]
    scripted.says("ok")
    answer = httpx.post(f"{scripted.url}{path}", json={**body, "field_of_next_year": {"a": 1}}, trust_env=False)
    assert answer.status_code == 200


# --- deadlines, switches, keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBES)
def test_each_dialect_brings_its_own_deadline(scripted: Scripted, name: str) -> None:
    path, body = PROBES[name]
    desk = scripted.says("ok")
    began = time.time()
    httpx.post(f"{scripted.url}{path}", json=body, trust_env=False)
    left_s = desk.until_ms[0] / 1000 - began
    assert DIALECTS[name].deadline_s <= left_s < DIALECTS[name].deadline_s + SLOW_S


def test_rolls_deadline_is_below_its_thirty_seconds(scripted: Scripted) -> None:
    desk = scripted.says("ok")
    began = time.time()
    body = {**RUN, "compile_timeout": 30, "run_timeout": 30, "expected_stdout": "1"}
    httpx.post(f"{scripted.url}/run_code", json=body, trust_env=False)
    assert 27 <= desk.until_ms[0] / 1000 - began < 27 + SLOW_S
    assert desk.calls[0][0].limits.wall_s < 27


def test_a_program_that_is_too_large_has_failed(scripted: Scripted) -> None:
    body = {**RUN, "code": "#" * (scripted.settings.max_code_bytes + 1)}
    answer = httpx.post(f"{scripted.url}/run_code", json=body, trust_env=False).json()
    assert (answer["status"], answer["run_result"]["status"]) == ("Failed", "Error")
    assert "max_code_bytes" in answer["message"]


def test_an_error_of_ours_that_nobody_expected_sheds_too(scripted: Scripted) -> None:
    def broken(order: Any) -> Any:
        raise ZeroDivisionError

    scripted.says(broken)
    assert ask(scripted, "sandbox_fusion").status_code == 504


def test_a_dialect_can_be_switched_off() -> None:
    with Scripted(dialects_off=["slime", "vllm"]) as one:
        assert ask(one, "slime").status_code == 404
        assert ask(one, "vllm").status_code == 404
        assert ask(one, "openrlhf").status_code == 200
        body = {"text_1": "a", "text_2": "b"}
        assert httpx.post(f"{one.url}/score", json=body, trust_env=False).status_code == 422


def test_a_switch_that_is_none_is_refused() -> None:
    with pytest.raises(PlauditError, match="dialects_off: slim"):
        Scripted(dialects_off=["slim"])


def test_a_key_may_stand_in_the_url() -> None:
    path, body = PROBES["sandbox_fusion"]
    with Scripted(api_key=["k-1"]) as one:
        for user, status in (("", 401), ("plaudit:wrong@", 401), ("plaudit:k-1@", 200)):
            url = f"http://{user}{one.address}{path}"
            assert httpx.post(url, json=body, trust_env=False).status_code == status


def test_the_page_is_there() -> None:
    assert Path(PAGE).is_file()
