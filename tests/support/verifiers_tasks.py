"""Agents of `verifiers.v1` on tasks that the service rewards, in an environment that has verifiers; prints the traces.

Arguments: the service's URL, and a file of Python that defines `taskset` (the page's block). The model is a server of
this process that answers what it is given; the harness sends the prompt through the rollout's own endpoint.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import verifiers.v1 as vf
from verifiers.v1.configs.taskset import TasksetConfig
from verifiers.v1.tasksets.nemo_gym.taskset import NeMoGymConfig, NeMoGymTaskConfig, NeMoGymTaskset

from plaudit.integrations.verifiers import task_reward

GOOD = "Sure:\n```python\ndef add(a, b):\n    return a + b\n```"
BAD = "```python\ndef add(a, b):\n    return a - b\n```"
NONE = "I would rather not."
TESTS = ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]


class Answers(BaseHTTPRequestHandler):
    """An OpenAI-compatible server whose answers stand in `server.answers`."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": self.server.answers.pop(0)}  # type: ignore[attr-defined]
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {"id": "a", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        body = json.dumps({**answer, "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class SingleCallHarness(vf.Harness[vf.HarnessConfig]):  # type: ignore[misc]
    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(self, ctx: Any, trace: Any, runtime: Any, endpoint: str, secret: str, *_: Any, **__: Any) -> Any:
        prompt = trace.task.data.prompt
        asked = (
            [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [one.model_dump() for one in prompt]
        )
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {secret}"}, timeout=60) as client:
            answer = await client.post(f"{endpoint}/chat/completions", json={"model": ctx.model, "messages": asked})
        return vf.ProgramResult(0 if answer.is_success else 1, "", answer.text)


class CodeData(vf.TaskData):  # type: ignore[misc]
    tests: Any = None


class CodeTask(vf.Task[CodeData]):  # type: ignore[misc]
    """Without a reward of its own: the configuration has it."""


def told(trace: Any) -> dict[str, Any]:
    return {
        "ok": trace.ok,
        "errors": [f"{error.type}: {error.message}" for error in trace.errors],
        "rewards": {name: reward and reward.value for name, reward in trace.rewards.items()},
        "metrics": trace.metrics,
    }


async def main(url: str, page: str) -> None:
    spaces: dict[str, Any] = {}
    exec(compile(Path(page).read_text("utf-8"), page, "exec"), spaces)
    harness = types.ModuleType("single_call")
    vars(harness).update(SingleCallHarness=SingleCallHarness, __all__=["SingleCallHarness"])
    plugged = types.ModuleType("plugged")
    vars(plugged).update(
        both=task_reward(url),
        tests=task_reward(url, reward="tests"),
        gone=task_reward("http://127.0.0.1:9", timeout_s=1.0),
    )
    sys.modules.update(single_call=harness, plugged=plugged)

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = vf.EvalClientConfig(base_url=f"http://127.0.0.1:{server.server_port}/v1")
    agent = vf.Agent(
        vf.AgentConfig(model="m", harness={"id": "single_call"}, runtime=vf.SubprocessConfig(), client=client)
    )

    async def traces(tasks: list[Any], answers: list[str]) -> list[Any]:
        server.answers = list(answers)
        return [told(await agent.run(task)) for task in tasks]

    def task(function: str, tests: Any = TESTS) -> Any:
        config = vf.TaskConfig(rewards={"plaudit": {"fn": f"plugged:{function}", "weight": 2.0}})
        return CodeTask(CodeData(prompt="Write add(a, b).", system_prompt="Be brief.", tests=tests), config)

    problems = [{"prompt": "Write add(a, b).", "tests": TESTS}] * 3
    row = {
        "responses_create_params": {"input": [{"role": "user", "content": "Write add(a, b)."}]},
        "verifier_metadata": {"unit_tests": {"inputs": ["1\n2", "0\n0"], "outputs": ["3", "0"], "fn_name": "add"}},
    }
    Path("gym.jsonl").write_text(json.dumps(row) + "\n")
    gym = NeMoGymTaskset(NeMoGymConfig(dataset=Path("gym.jsonl"), task=NeMoGymTaskConfig(resources_url=url)))
    page_tasks = list(spaces["taskset"](problems)(TasksetConfig()))
    async with agent:
        found = {
            "page": await traces(page_tasks, [GOOD, BAD, NONE]),
            "both": await traces([task("both")] * 2, [GOOD, BAD]),
            "tests": await traces([task("tests")] * 2, [GOOD, BAD]),
            "gym": await traces([*gym] * 2, [GOOD, BAD]),
            "broken": await traces([task("tests", tests="none")], [GOOD]),
            "outage": await traces([task("gone")], [GOOD]),
        }
    server.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
