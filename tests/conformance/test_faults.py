"""Our misfortunes, as each dialect's client meets them: never a silent zero, never a hang.

Two tables of `docs/dialects.md` are made here, by asking: what goes over the wire when a fault lasts, and what the
clients end up with. They are written anew by `pytest tests/conformance/test_faults.py --rewrite`, and compared
otherwise. The service is scripted; everything from the socket to it is real, and so are the clients in bold.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from plaudit.errors import BrokerUnavailable, NoWorker, Overloaded, PlauditError, WouldMissDeadline
from service.api.compat import base
from service.api.compat.registry import DIALECTS
from support.pages import ROOT, publish, table
from support.probes import PROBES, Case
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

RUN = PROBES["sandbox_fusion"].body(Case(), 1)
RIGHT = {name: probe.right(Case(), 1) if probe.right else None for name, probe in PROBES.items()}


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
    if name == "roll":
        return "200" if body["errcode"] == 0 else f"200, `errcode` {body['errcode']}"
    if name == "piston" and body["run"]["signal"]:
        return f"200, killed by {body['run']['signal']}"
    return "200"


def ask(scripted: Scripted, name: str) -> httpx.Response:
    return PROBES[name].ask(scripted.url, Case(), 1, {"X-Deadline-Ms": str(PATIENCE_MS)})


def over_the_wire(scripted: Scripted, word: Word) -> list[str]:
    """One fault, met by all dialects at once."""
    scripted.says(word)
    began = time.monotonic()
    with ThreadPoolExecutor(len(PROBES)) as pool:
        cells = list(pool.map(lambda name: told(name, ask(scripted, name)), PROBES))
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


def tries(number: int, name: str, *, retries: Callable[[int], bool], gives_up: Any) -> Client:
    """A client by its rule: so many tries while `retries(status)`; after the last, `gives_up` (an exception or not)."""

    def client(scripted: Scripted) -> Any:
        for _ in range(number):
            answer = PROBES[name].ask(scripted.url, Case(), 1)
            if answer.is_success:
                return PROBES[name].read(answer.json())
            if not retries(answer.status_code):
                break
        if isinstance(gives_up, type):
            raise gives_up(f"HTTP {answer.status_code}")
        return gives_up

    return client


def roll(scripted: Scripted) -> Any:
    """Five tries, each until it is no longer pending; then 0."""
    for _ in range(5):
        answer = PROBES["roll"].ask(scripted.url, Case(), 1)
        if answer.is_success and answer.json()["errcode"] == 0:
            return answer.json()["reward_score"]
    return 0.0


def always(status: int) -> bool:
    return True


def infra(status: int) -> bool:
    return status >= 500 or status in (408, 429)


def listed(status: int) -> bool:
    return status in (500, 502, 503, 504)


BY_RULE: dict[str, tuple[Client, Any]] = {
    "slime": (tries(10, "slime", retries=always, gives_up=RuntimeError), RIGHT["slime"]),
    "open-r1 (E2B)": (tries(1, "open_r1", retries=always, gives_up=RuntimeError), RIGHT["open_r1"]),
    "NeMo-Gym": (tries(3, "nemo_gym", retries=infra, gives_up=RuntimeError), RIGHT["nemo_gym"]),
    "open-instruct": (tries(2, "open_instruct", retries=listed, gives_up=0.0), RIGHT["open_instruct"]),
    "LLaMA-Factory": (tries(1, "llama_factory", retries=always, gives_up=KeyError), [0.5]),
    "Piston client": (tries(6, "piston", retries=always, gives_up="failed test"), RIGHT["piston"]),
    "ROLL's worker": (roll, RIGHT["roll"]),
}


@pytest.fixture
def clients(verl_sandbox: Any, verl_reward_loop: Any, openrlhf_agent: Any) -> dict[str, tuple[Client, Any]]:
    """Everybody with what is right, by the name in the table; those that are other people's code in bold."""

    def verl(scripted: Scripted) -> Any:
        completion = "```python\nprint(1)\n```"
        tests = {"inputs": [""], "outputs": ["1"]}
        value, metadata = verl_sandbox.compute_score(
            f"{scripted.url}/run_code", threading.Semaphore(1), 1024, completion, tests, timeout=1
        )
        return value if metadata[0]["status"] == "success" else f"{value:g}, {metadata[0]['status']}"

    def loop(scripted: Scripted) -> Any:
        worker = verl_reward_loop(scripted.address, "vllm")
        return asyncio.run(worker.compute_score_disrm("text"))["reward_score"]

    def openrlhf(scripted: Scripted) -> Any:
        executor = openrlhf_agent.SingleTurnAgentExecutor(f"{scripted.url}/get_reward")
        asked = PROBES["openrlhf"].body(Case(), 1)
        fetched: Awaitable[Any] = executor._fetch_rewards_via_http(asked["query"], asked["prompts"], asked["labels"])
        (one,) = asyncio.run(_awaited(fetched))
        return one["rewards"] if one["extra_logs"]["reward_ok"] == [1.0] else f"{one['rewards'][0]:g}, `reward_ok` 0"

    return {
        "**verl sandbox**": (verl, 1.0),
        "**verl reward loop**": (loop, 0.5),
        "**OpenRLHF**": (openrlhf, [1.0]),
        "**sandbox-fusion**": (sandbox_fusion_package, "1\n"),
        "**cohere**": (cohere_package, 0),
        **BY_RULE,
    }


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


def ends_with(client: Client, right: Any, scripted: Scripted) -> str:
    """What the trainer sees, in a table's words."""
    try:
        value = client(scripted)
    except Exception as error:  # noqa: BLE001 - whatever the client raises is what its trainer sees
        return f"raises `{type(error).__name__}`"
    if value == right or value is None:
        return "right" if value == right else "null"
    return " ".join(f"`{part}`" for part in value) if isinstance(value, tuple) else str(value).strip() or "failed test"


# --- the tables ------------------------------------------------------------------------------------------------------


def test_every_dialect_is_probed() -> None:
    assert list(PROBES) == list(DIALECTS)


def test_what_goes_over_the_wire(scripted: Scripted, request: pytest.FixtureRequest) -> None:
    columns = {fault: over_the_wire(scripted, word) for fault, word in LASTING.items()}
    rows = [[f"`{probe.path}`", *cells] for probe, *cells in zip(PROBES.values(), *columns.values(), strict=True)]
    made = table(["endpoint", *columns], rows)
    publish(PAGE, "wire", lambda _: made, rewrite=request.config.getoption("--rewrite"))
    for name, cell in zip(PROBES, columns["Redis gone"], strict=True):
        retry_status = DIALECTS[name].retry_status
        assert retry_status is None or cell == f"{retry_status} + Retry-After"


@pytest.mark.timeout(300)
def test_what_clients_end_up_with(
    scripted: Scripted,
    clients: dict[str, tuple[Client, Any]],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = base.deadline

    def hurried(settings: Any, body_ms: int | None, header: str | None) -> int:
        return real(settings, HURRY_MS, header)

    monkeypatch.setattr(time, "sleep", lambda seconds, wait=time.sleep: wait(min(seconds, 0.05)))
    fault = NoWorker("by the script", retry_after_s=0.1)
    passing = []
    for client, right in clients.values():
        scripted.says(fault, fault, "ok")
        passing.append(ends_with(client, right, scripted))
    assert set(passing) == {"right"}
    monkeypatch.setattr(base, "deadline", hurried)
    columns = [list(clients), passing]
    for word in (fault, "timeout_queue", "infra_error"):
        scripted.says(word)
        with ThreadPoolExecutor(len(clients)) as pool:
            columns.append(list(pool.map(lambda both: ends_with(*both, scripted), clients.values())))
    rows = [list(row) for row in zip(*columns, strict=True)]
    made = table(["client", "an outage that passes", "one that lasts", "deadline passed", "poisoned"], rows)
    publish(PAGE, "clients", lambda _: made, rewrite=request.config.getoption("--rewrite"))


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
        answer = httpx.post(f"{scripted.url}{PROBES[name].path}", content=content, headers=headers, trust_env=False)
        assert answer.status_code in (400, 422)


@pytest.mark.parametrize("name", PROBES)
def test_unknown_fields_are_nobody_s_business(scripted: Scripted, name: str) -> None:
    probe = PROBES[name]
    scripted.says("ok")
    body = probe.body(Case(), 1)
    answer = httpx.post(f"{scripted.url}{probe.path}", json={**body, "field_of_next_year": {"a": 1}}, trust_env=False)
    assert answer.status_code == 200


# --- deadlines, switches, keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBES)
def test_each_dialect_brings_its_own_deadline(scripted: Scripted, name: str) -> None:
    service = scripted.says("ok")
    began = time.time()
    PROBES[name].ask(scripted.url, Case(), 1)
    left_s = service.until_ms[0] / 1000 - began
    assert DIALECTS[name].deadline_s <= left_s < DIALECTS[name].deadline_s + SLOW_S


def test_rolls_deadline_is_below_its_thirty_seconds(scripted: Scripted) -> None:
    service = scripted.says("ok")
    began = time.time()
    body = {**RUN, "compile_timeout": 30, "run_timeout": 30, "expected_stdout": "1"}
    httpx.post(f"{scripted.url}/run_code", json=body, trust_env=False)
    assert 27 <= service.until_ms[0] / 1000 - began < 27 + SLOW_S
    assert service.calls[0][0].limits.wall_s < 27


def test_a_program_that_is_too_large_has_failed(scripted: Scripted) -> None:
    body = {**RUN, "code": "#" * (scripted.settings.max_code_bytes + 1)}
    answer = httpx.post(f"{scripted.url}/run_code", json=body, trust_env=False).json()
    assert (answer["status"], answer["run_result"]["status"]) == ("Failed", "Error")
    assert "max_code_bytes" in answer["message"]


def test_an_unexpected_error_has_the_retry_status_too(scripted: Scripted) -> None:
    def broken(order: Any) -> Any:
        raise ZeroDivisionError

    scripted.says(broken)
    assert ask(scripted, "sandbox_fusion").status_code == 504


@pytest.mark.parametrize("name", PROBES)
def test_a_dialect_can_be_switched_off(name: str) -> None:
    other = next(one for one in PROBES if one != name)
    with Scripted(dialects_off=[name]) as one:
        assert ask(one, name).status_code == 404
        assert ask(one, other).status_code == 200


def test_without_vllm_s_dialect_its_score_is_a_mistake_in_ours() -> None:
    body = {"text_1": "a", "text_2": "b"}
    with Scripted(dialects_off=["vllm"]) as one:
        assert httpx.post(f"{one.url}/score", json=body, trust_env=False).status_code == 422


def test_a_switch_that_is_none_is_refused() -> None:
    with pytest.raises(PlauditError, match="dialects_off: slim"):
        Scripted(dialects_off=["slim"])


def test_a_key_may_stand_in_the_url() -> None:
    with Scripted(api_key=["k-1"]) as one:
        for user, status in (("", 401), ("plaudit:wrong@", 401), ("plaudit:k-1@", 200)):
            url = f"http://{user}{one.address}/run_code"
            assert httpx.post(url, json=RUN, trust_env=False).status_code == status
