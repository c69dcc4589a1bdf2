"""`plaudit.integrations` against the running service, called as each trainer calls its own reward function; against a
scripted one for what happens when something of ours fails."""

from __future__ import annotations

import asyncio
import inspect
import math
import multiprocessing
import pickle
import sys
import types
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import NoWorker, Overloaded, PlauditError, TooLarge, Unauthorized
from plaudit.integrations import areal, openrlhf, skyrl, slime, trl, verifiers, verl
from plaudit.integrations.batcher import RewardBatcher
from plaudit.integrations.config import Misconfigured
from plaudit.integrations.rows import TrainerRow
from plaudit.schemas import CompletionReward, Component, Message, ResultError
from plaudit.tests_first import unit
from support import clients
from support.plug_ins import (
    BAD,
    GOOD,
    NONE,
    PLUG_INS,
    PROMPT,
    TESTS,
    TIE,
    about,
    answered,
    inspect_score,
    rewards_of,
    rollout,
    sample,
)
from support.scripted import Scripted
from support.stack import Stack

pytestmark = pytest.mark.usefixtures("nothing_left_open")


# --- each trainer's own call -----------------------------------------------------------------------------------------


def test_trl(stack: Stack) -> None:
    reward = trl.reward_function(stack.url)
    assert reward.__name__ == "plaudit"
    logged: dict[str, Any] = {}
    found = reward(
        prompts=[PROMPT] * 3,
        completions=[GOOD, BAD, NONE],
        completion_ids=[[1]] * 3,
        tests=[TESTS] * 3,
        trainer_state=None,
        log_extra=logged.__setitem__,
        log_metric=logged.__setitem__,
    )
    assert found == about(1.0, 0.5, 0.0)
    assert logged == {"pass_rate": [1.0, 0.5, 0.0], "plaudit/reward_ok": 1.0}


MARKED = {
    "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    "chatml, thought closed": (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    ),
    "llama 3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>"
        "\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "phi": "<|system|>\nS<|end|>\n<|user|>\n{}<|end|>\n<|assistant|>\n",
    "deepseek": "<｜begin▁of▁sentence｜>S<｜User｜>{}<｜Assistant｜><think>\n",
    "gemma": "<bos><start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n",
    "mistral": "<s>[INST] {} [/INST]",
}


@pytest.mark.parametrize("name", MARKED)
def test_a_prompt_that_was_rendered_is_scored_under_the_reward_models_template_alone(stack: Stack, name: str) -> None:
    """OpenRLHF's `--data.apply_chat_template` hands over what the policy reads."""
    system = [] if name in ("gemma", "mistral") else [{"role": "system", "content": "S"}]
    prompt = MARKED[name].format(PROMPT)
    with stack.client() as http:
        asked = [*system, {"role": "user", "content": PROMPT}]
        body = {"items": [{"prompt": asked, "completions": [GOOD]}]}
        score = http.post("/score", json=body).json()["results"][0]["completions"][0]["score"]
    reward = openrlhf.reward_func(stack.url, reward="model")
    answer = reward([prompt + GOOD], [prompt], [TESTS])
    assert answer["extra_logs"]["rm"] == [pytest.approx(score, abs=1e-4)]


def test_a_rendered_prompt_in_an_unknown_markup_is_no_silent_score(stack: Stack) -> None:
    prompt = "<|im_start|>oracle\nX<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(PlauditError, match="under a template twice"):
        openrlhf.reward_func(stack.url, reward="model")([prompt + GOOD], [prompt], [TESTS])
    assert openrlhf.reward_func(stack.url, reward="tests")([prompt + GOOD], [prompt], [TESTS])["rewards"] == [1.0]
    about_tokens = "Explain <|im_start|> to me."
    assert openrlhf.reward_func(stack.url)([about_tokens + GOOD], [about_tokens], [TESTS])["extra_logs"][
        "reward_ok"
    ] == [1.0]


def test_trl_with_conversations_and_the_model_where_it_is_asked_for_by_name(stack: Stack) -> None:
    said = [[{"role": "assistant", "content": text}] for text in (GOOD, BAD, NONE)]
    prompts = [[{"role": "user", "content": PROMPT}]] * 3
    with stack.client() as http:
        body = {"items": [{"prompt": prompts[0], "completions": [GOOD, BAD, NONE]}]}
        scores = [one["score"] for one in http.post("/score", json=body).json()["results"][0]["completions"]]
    batch: dict[str, Any] = {"prompts": prompts, "completions": said, "unit_tests": [TESTS, TESTS, TESTS]}
    assert trl.reward_function(stack.url, column="unit_tests")(**batch) == about(1.0, 0.5, 0.0)
    assert trl.reward_function(stack.url, column="unit_tests", reward="tests")(**batch) == [1.0, 0.5, 0.0]
    for asked in ({"reward": "model"}, {"spec": {"terms": [{"name": "m", "type": "score"}]}}):
        found = trl.reward_function(stack.url, column="unit_tests", **asked)(
            **batch | {"unit_tests": [TESTS, "no", None]}
        )
        assert found == pytest.approx(scores, abs=1e-4)


async def test_verl(stack: Stack) -> None:
    compute_score = verl.compute_score(stack.url)
    assert inspect.iscoroutinefunction(compute_score)  # by this verl tells the two ways apart
    calls = [
        compute_score(data_source="taco", solution_str=text, ground_truth=TESTS, extra_info={"prompt": PROMPT})
        for text in (GOOD, BAD, NONE)
    ]
    found = await asyncio.gather(*calls)
    for one, rate in zip(found, (1.0, 0.5, 0.0), strict=True):
        rm = one.pop("rm")
        assert one == {"score": rate + unit(rm) * TIE, "reward_ok": 1.0, "pass_rate": rate}


def test_verl_s_plain_and_batch_managers(stack: Stack) -> None:
    plain = verl.compute_score_blocking(stack.url)
    assert not inspect.iscoroutinefunction(plain)
    one = plain(data_source="taco", solution_str=GOOD, ground_truth=TESTS, extra_info=None)
    many = verl.compute_score_batch(stack.url)(
        data_sources=["taco"] * 2, solution_strs=[GOOD, BAD], ground_truths=[TESTS] * 2, extra_infos=[None] * 2
    )
    assert [one["score"], *(row["score"] for row in many)] == about(1.0, 1.0, 0.5)


async def test_openrlhf_loads_the_file_and_calls_it(stack: Stack, wheels: Path, tmp_path: Path) -> None:
    agent = clients.openrlhf_agent(wheels)
    file = tmp_path / "reward.py"
    file.write_text(
        "from plaudit.integrations import openrlhf\n"
        f"reward_func = openrlhf.reward_func({stack.url!r}, reward='tests')\n"
    )
    executor = agent.SingleTurnAgentExecutor(str(file))
    (found,) = await executor._fetch_rewards_via_func([PROMPT + BAD], [PROMPT], [TESTS])
    assert found == {
        "rewards": [0.5],
        "scores": [0.5],
        "extra_logs": {"reward_ok": [1.0], "pass_rate": [0.5], "rm": [0.0]},
    }
    executor.reward_func.args[0].close()


async def test_openrlhf_s_agents(stack: Stack, wheels: Path) -> None:
    agent = clients.openrlhf_agent(wheels)
    judge = openrlhf.agent_step(stack.url, reward="tests")

    class Coder(agent.AgentInstanceBase):
        def __init__(self) -> None: ...

        async def step(self, states: dict[str, Any], **_: Any) -> dict[str, Any]:
            return await judge(states)

    step = await Coder().step({"observation_text": PROMPT, "action_text": BAD, "label": TESTS})
    assert step["rewards"] == step["scores"] == 0.5
    assert (step["done"], step["extra_logs"]["reward_ok"]) == (True, 1.0)


async def test_slime_alone_and_in_groups(stack: Stack) -> None:
    custom_rm = slime.custom_rm(stack.url)
    plain, keyed = types.SimpleNamespace(reward_key=None), types.SimpleNamespace(reward_key="score")
    assert [await custom_rm(plain, sample(BAD))] == about(0.5)
    assert await custom_rm(plain, [sample(GOOD), sample(BAD)]) == about(1.0, 0.5)
    assert [(await custom_rm(keyed, sample(GOOD)))["score"]] == about(1.0)


def test_areal_from_another_process(stack: Stack) -> None:
    reward_fn = areal.reward_fn(stack.url)
    assert [reward_fn(PROMPT, GOOD, [1], [2], tests=TESTS)] == about(1.0)  # connected, and pickled all the same
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert [pool.submit(reward_fn, PROMPT, BAD, [1], [2], tests=TESTS).result(60)] == about(0.5)


def test_skyrl_with_its_own_base_class(stack: Stack, wheels: Path) -> None:
    place = clients.unpacked("skyrl-gym", wheels)
    (root,) = place.glob("skyrl_gym")
    for name in ("skyrl_gym", "skyrl_gym.envs"):  # without their __init__, which imports every environment
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(root / name.partition(".")[2])]
    core = clients._load("skyrl_gym.core", root / "core.py")
    sys.modules["skyrl_gym"].Env = core.Env  # type: ignore[attr-defined]
    base = clients._load("skyrl_gym.envs.base_text_env", root / "envs" / "base_text_env.py")

    class Code(skyrl.env_mixin(stack.url), base.BaseTextEnv):  # type: ignore[misc]
        pass

    env = Code({}, {"reward_spec": {"ground_truth": TESTS}})
    prompt, _ = env.init([{"role": "user", "content": PROMPT}])
    assert prompt[0]["content"] == PROMPT
    step = env.step(BAD)
    assert ([step["reward"]], step["done"], step["observations"]) == (about(0.5), True, [])
    assert env.get_metrics()["pass_rate"] == 0.5
    assert env.max_turns == 1


async def test_verifiers(stack: Stack) -> None:
    reward = verifiers.reward_func(stack.url)
    said = [{"role": "assistant", "content": BAD}]
    ask: dict[str, Any] = {"prompt": PROMPT, "completion": said, "state": {}, "task": ""}
    assert [await reward(answer="", info={"tests": TESTS}, **ask)] == about(0.5)
    assert [await reward(answer=TESTS, info={"id": 7}, **ask)] == about(0.5)  # the tests are where they are


async def test_verifiers_v1_rewards_the_last_reply_of_a_task(stack: Stack) -> None:
    reward = verifiers.task_reward(stack.url)
    asked = [Message(role="user", content=PROMPT)]
    for prompt, system in ((PROMPT, None), (PROMPT, "Be brief."), (asked, "Be brief."), (asked, None)):
        task, trace = rollout(BAD, prompt, system, tests=TESTS)
        assert [await reward(task=task, trace=trace)] == about(0.5)
        assert trace.metrics == {"pass_rate": 0.5, "rm": pytest.approx(trace.metrics["rm"])}
    with pytest.raises(Misconfigured, match=r"quiz: the task's data has no such field.*; there are prompt, tests"):
        await verifiers.task_reward(stack.url, column="quiz")(*rollout(GOOD, tests=TESTS))


async def test_verifiers_v1_has_the_system_prompt_scored(stack: Stack) -> None:
    reward = verifiers.task_reward(stack.url, reward="model")
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
    with stack.client() as http:
        body = {"items": [{"prompt": asked, "completions": [GOOD]}]}
        score = http.post("/score", json=body).json()["results"][0]["completions"][0]["score"]
    assert await reward(*rollout(GOOD, PROMPT, "Be brief.")) == pytest.approx(score, abs=1e-4)
    assert await reward(*rollout(GOOD, PROMPT)) != pytest.approx(score, abs=1e-4)


def test_inspect_scores_are_letters_or_rewards(stack: Stack) -> None:
    for completion, letter, rate in ((GOOD, "C", 1.0), (BAD, "I", 0.5), (NONE, "I", 0.0)):
        score = inspect_score(stack.url, {"tests": TESTS}, completion)
        assert (score.value, score.metadata) == (letter, {"reward": rate, "pass_rate": rate})
    score = inspect_score(stack.url, {"tests": TESTS}, BAD, value="reward")
    assert [score.value] == about(0.5)
    assert score.answer == "def add(a, b):\n    return a - b\n"
    assert inspect_score(stack.url, {"tests": TESTS}, "").reason == "no_response"
    for options in ({"reward": "model"}, {"value": "letter"}):
        with pytest.raises(ValueError, match=r"^value: "):
            inspect_score(stack.url, **options)


# --- what a label and a completion may be ----------------------------------------------------------------------------


def test_a_method_of_solution_is_found_by_its_name_and_the_asked_language_wins(stack: Stack) -> None:
    leet = "```python\nclass Solution:\n    def add(self, a, b):\n        return a + b\n```\n```text\n3\n```"
    label = {"inputs": ["1\n2"], "outputs": ["3"], "fn_name": "add"}
    for reward in ("auto", "tests"):
        judge = trl.reward_function(stack.url, reward=reward)  # type: ignore[typeddict-item]
        assert judge(prompts=[PROMPT], completions=[leet], tests=[label]) == about(1.0)


def test_tests_and_model_together(stack: Stack) -> None:
    spec = {"terms": [{"name": "t", "type": "execute", "weight": 2.0}, {"name": "rm", "type": "score"}]}
    batcher = RewardBatcher(stack.url, spec=spec)
    good, bad = batcher.rewards([TrainerRow(PROMPT, GOOD, TESTS), TrainerRow(PROMPT, BAD, TESTS)])
    assert (good.pass_rate, bad.pass_rate) == (1.0, 0.5)
    assert good.reward == pytest.approx(2.0 + (good.rm or 0))


def test_a_row_that_cannot_be_rated_does_not_take_its_neighbours_along(stack: Stack) -> None:
    book = "```python\n" + "x = 1\n" * 60_000 + "```"
    rows = [TrainerRow(PROMPT, GOOD, TESTS), TrainerRow(PROMPT, book, TESTS), TrainerRow(PROMPT, BAD, TESTS)]
    first, second, third = RewardBatcher(stack.url).rewards(rows)
    assert [first.reward, third.reward] == about(1.0, 0.5)
    assert (second.reward, type(second.error)) == (None, TooLarge)


# --- one request for a group -----------------------------------------------------------------------------------------


def struck(asked: Any, *, retryable: bool = True) -> Any:
    """The same, but the last completion was struck by a fault of ours."""
    answer = answered(asked)
    error = ResultError(code="infra_error" if retryable else "poisoned", detail="by the script", retryable=retryable)
    part = Component(status="infra_error", error=error)
    bad = CompletionReward(status="infra_error", trainable=False, components={"tests": part})
    last = answer.results[-1]
    results = [*answer.results[:-1], last.model_copy(update={"completions": [*last.completions[:-1], bad]})]
    return answer.model_copy(update={"results": results, "status": "partial"})


def test_a_batch_is_one_request_with_an_item_a_group(scripted: Scripted) -> None:
    desk = scripted.says(answered)
    found = trl.reward_function(scripted.url)(prompts=["a"] * 4 + ["b"] * 4, completions=[GOOD] * 8, tests=[TESTS] * 8)
    assert found == [1.0] * 8
    (asked,) = desk.calls
    assert [len(item.completions) for item in asked.items] == [4, 4]


async def test_samples_of_many_tasks_share_a_request(scripted: Scripted) -> None:
    desk = scripted.says(answered)
    compute_score = verl.compute_score(scripted.url, gather_s=0.05)
    await asyncio.gather(*(compute_score("taco", GOOD, TESTS, {"prompt": PROMPT}) for _ in range(16)))
    assert [[len(item.completions) for item in asked.items] for asked in desk.calls] == [[16]]


def test_samples_of_many_threads_share_a_request(scripted: Scripted) -> None:
    desk = scripted.says(answered)
    reward_func = openrlhf.reward_func(scripted.url, gather_s=0.3)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: reward_func([PROMPT + GOOD], [PROMPT], [TESTS]), range(8)))
    assert [one["rewards"] for one in found] == [[1.0]] * 8
    assert sum(len(item.completions) for asked in desk.calls for item in asked.items) == 8
    assert len(desk.calls) < 4


# --- never a zero ----------------------------------------------------------------------------------------------------

OUTAGE = NoWorker("by the script", retry_after_s=0.05)


@pytest.mark.parametrize("name", PLUG_INS)
def test_an_outage_that_lasts_is_raised_and_one_that_passes_is_waited_for(name: str, scripted: Scripted) -> None:
    scripted.says(OUTAGE)
    with pytest.raises(PlauditError):
        rewards_of(scripted.url, timeout_s=0.5)[name]()
    scripted.says(Overloaded("by the script", retry_after_s=0.05), OUTAGE, answered)
    rewards_of(scripted.url, timeout_s=20.0)[name]()


def test_trl_gets_none_for_the_rows_that_were_struck_and_only_for_them(scripted: Scripted) -> None:
    scripted.says(struck)
    reward = trl.reward_function(scripted.url, timeout_s=1.5)
    ask: dict[str, Any] = {"prompts": [PROMPT] * 3, "completions": [GOOD] * 3, "tests": [TESTS] * 3}
    assert reward(**ask) == [1.0, 1.0, None]
    scripted.says(struck, answered)
    assert trl.reward_function(scripted.url, timeout_s=20.0)(**ask) == [1.0] * 3  # asked again, and mended
    desk = scripted.says(lambda asked: struck(asked, retryable=False))
    assert trl.reward_function(scripted.url, timeout_s=20.0)(**ask) == [1.0, 1.0, None]
    assert len(desk.calls) == 1  # what no try mends is not tried again
    scripted.says(OUTAGE)
    assert trl.reward_function(scripted.url, timeout_s=0.5)(**ask) == [None] * 3
    assert trl.reward_function("http://127.0.0.1:9", timeout_s=0.5)(**ask) == [None] * 3  # nobody there


def test_a_wrong_key_is_said_at_once(scripted: Scripted) -> None:
    scripted.says(Unauthorized("by the script"))
    with pytest.raises(Unauthorized):
        trl.reward_function(scripted.url)(prompts=[PROMPT], completions=[GOOD], tests=[TESTS])


async def test_a_fallback_says_that_it_is_one(scripted: Scripted) -> None:
    scripted.says(OUTAGE)
    options: dict[str, Any] = {"fallback": -1.0, "timeout_s": 0.5}
    numbers = {"score": -1.0, "reward_ok": 0.0, "pass_rate": 0.0, "rm": 0.0}
    assert await verl.compute_score(scripted.url, **options)("taco", GOOD, TESTS) == numbers
    told = await asyncio.to_thread(openrlhf.reward_func(scripted.url, **options), [GOOD], [PROMPT], [TESTS])
    assert (told["rewards"], told["extra_logs"]["reward_ok"]) == ([-1.0], [0.0])
    one = sample(GOOD)
    assert await slime.custom_rm(scripted.url, **options)(types.SimpleNamespace(reward_key=None), one) == -1.0
    assert one.remove_sample is True


async def test_a_rubric_that_would_make_exceptions_zeros_gets_nan_and_an_error(scripted: Scripted) -> None:
    scripted.says(OUTAGE)
    state: dict[str, Any] = {}
    found = await verifiers.reward_func(scripted.url, timeout_s=0.5)(PROMPT, GOOD, "", {"tests": TESTS}, state)
    assert math.isnan(found)
    assert isinstance(state["error"], PlauditError)


def test_every_plug_in_can_be_pickled() -> None:
    for make in (
        trl.reward_function,
        verl.compute_score,
        verl.compute_score_blocking,
        verl.compute_score_batch,
        openrlhf.reward_func,
        openrlhf.agent_step,
        slime.custom_rm,
        areal.reward_fn,
        verifiers.reward_func,
    ):
        again = pickle.loads(pickle.dumps(make("http://127.0.0.1:9", timeout_s=3.0)))
        assert again.args[0].config.timeout_s == 3.0


def test_no_trainer_is_imported() -> None:
    import subprocess

    heavy = {"torch", "trl", "verl", "ray", "transformers", "fastapi", "redis"}
    code = f"import sys, plaudit.integrations.trl, plaudit.integrations.verl; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
