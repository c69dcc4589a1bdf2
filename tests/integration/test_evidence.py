"""`/rank` without tests over HTTP: the prompt's own examples order, then what the group agrees on, then the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from plaudit import Client
from support.stack import Stack, wait_for

HUMAN_EVAL = '''from typing import List


def running_max(numbers: List[int]) -> List[int]:
    """ Return the list of the largest numbers so far.
    >>> running_max([1, 3, 2])
    [1, 3, 3]
    >>> running_max([-2, -5])
    [-2, -2]
    """
'''
RIGHT = "    return [max(numbers[:i + 1]) for i in range(len(numbers))]\n"
LOOP = "    best, out = None, []\n    for n in numbers:\n        best = n if best is None else max(best, n)\n"
LOOP += "        out.append(best)\n    return out\n"
FROM_ZERO = LOOP.replace("None, []", "0, []").replace("n if best is None else ", "")
SORTED = "    return sorted(numbers)\n"
CONSTANT = "    return [1, 3, 3]\n"
CRASH = "    return numbers[99]\n"
ENDLESS = "    while True:\n        pass\n"
EXITS = "    import os\n    os._exit(0)\n"


def ranked(http: httpx.Client, prompt: Any, *completions: str, spec: Any = None, **fields: Any) -> dict[str, Any]:
    item = {"prompt": prompt, "completions": list(completions), **fields}
    response = http.post("/rank", json={"items": [item]} | ({} if spec is None else {"spec": spec}))
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    assert isinstance(result, dict)
    return result


def values(result: dict[str, Any], term: str) -> list[float | None]:
    return [one["components"][term]["value"] for one in result["completions"]]


def decided(result: dict[str, Any]) -> list[str]:
    best = result["completions"][result["group"]["best"]]
    return [name for name, component in best["components"].items() if component["decided"]]


def test_examples_of_the_prompt_put_the_right_program_first(http: httpx.Client) -> None:
    completions = (CONSTANT, SORTED, ENDLESS, FROM_ZERO, EXITS, RIGHT, CRASH, LOOP)
    result = ranked(http, HUMAN_EVAL, *completions)
    assert set(result["order"][:2]) == {5, 7}
    assert values(result, "examples") == [0.5, 0.0, 0.0, 0.5, 0.0, 1.0, 0.0, 1.0]
    evidence = result["evidence"]
    assert evidence["entry_point"] == "running_max"
    assert [example["passed"] for example in evidence["examples"]] == [4, 2]
    assert all(HUMAN_EVAL[one["start"] : one["end"]].startswith(one["text"]) for one in evidence["examples"])
    assert evidence["inputs"] > 10
    assert 0 < evidence["cpu_s"] < 10


def test_a_whole_function_needs_not_repeat_the_imports_of_the_prompt(http: httpx.Client) -> None:
    signature = "def running_max(numbers: List[int]) -> List[int]:\n"
    result = ranked(http, HUMAN_EVAL, signature + SORTED, signature + RIGHT)
    assert values(result, "examples") == [0.0, 1.0]


@pytest.mark.parametrize("chat", [False, True])
def test_answers_of_a_chat_model_are_ranked_by_their_code(http: httpx.Client, chat: bool) -> None:
    """Code in prose, with a usage example or an output behind it, and nobody has asked for `extract`."""
    function = "def running_max(numbers):\n"
    prompt: Any = HUMAN_EVAL
    if chat:
        prompt = [{"role": "user", "content": f"Complete this.\n```python\n{HUMAN_EVAL}```"}]
    wrong = f"Sorted, that is:\n\n```python\n{function}{SORTED}```\n"
    right = f"Here it is.\n\n```python\n{function}{LOOP}```\n\nIt prints\n\n```text\n[1, 3, 3]\n```\n"
    result = ranked(http, prompt, wrong, "I would rather not.", right)
    assert values(result, "examples") == [0.0, 0.0, 1.0]
    assert result["order"][0] == 2


def test_examples_decide_and_say_so(http: httpx.Client) -> None:
    result = ranked(http, HUMAN_EVAL, SORTED, RIGHT)
    assert (result["order"], decided(result)) == ([1, 0], ["examples"])
    assert result["group"]["margin"] > 0.9


def test_behavior_decides_among_programs_that_pass_the_examples(http: httpx.Client) -> None:
    overfitted = "    return {2: [-2, -2], 3: [1, 3, 3]}[len(numbers)]\n"
    result = ranked(http, HUMAN_EVAL, overfitted, RIGHT, LOOP)
    assert values(result, "examples") == [1.0, 1.0, 1.0]
    assert result["order"][-1] == 0
    first, second, third = (result["completions"][at]["components"]["behavior"]["value"] for at in result["order"])
    assert first == second > third


def test_without_examples_behavior_orders_and_constants_do_not_win(http: httpx.Client) -> None:
    prompt = 'def triple(n: int) -> int:\n    """Return n times three."""\n'
    same = "    return 0\n"
    right = ("    return n * 3\n", "    return 3 * n\n", "    return n + n + n\n")
    result = ranked(http, prompt, same, "    return n * 4\n", *right)
    assert set(result["order"][:3]) == {2, 3, 4}
    assert {one["components"]["examples"]["error"]["code"] for one in result["completions"]} == {"no_examples"}
    assert values(result, "examples") == [None] * 5


def test_a_wrong_example_is_dropped_and_said(http: httpx.Client) -> None:
    prompt = 'def add(a: int, b: int) -> int:\n    """\n    >>> add(1, 2)\n    4\n    >>> add(2, 5)\n    7\n    """\n'
    result = ranked(http, prompt, "    return a * b\n", "    return a + b\n", "    return b + a\n")
    assert [one["dropped"] for one in result["evidence"]["examples"]] == [True, False]
    assert values(result, "examples") == [0.0, 1.0, 1.0]


def test_leetcode_prompts_call_the_method_of_a_new_solution(http: httpx.Client) -> None:
    prompt = (
        "Given an array of integers nums and an integer target, return indices of the two numbers such that they add "
        "up to target.\n\nExample 1:\n\nInput: nums = [2,7,11,15], target = 9\nOutput: [0,1]\n\n"
        "Example 2:\n\nInput: nums = [3,2,4], target = 6\nOutput: [1,2]\n\n"
        "class Solution:\n    def twoSum(self, nums: List[int], target: int) -> List[int]:\n"
    )
    head = "class Solution:\n    def twoSum(self, nums: List[int], target: int) -> List[int]:\n"
    right = head + (
        "        for i in range(len(nums)):\n            for j in range(i + 1, len(nums)):\n"
        "                if nums[i] + nums[j] == target:\n                    return [i, j]\n"
    )
    wrong = head + "        return [0, 1]\n"
    result = ranked(http, prompt, wrong, right)
    assert result["order"] == [1, 0]
    assert values(result, "examples") == [0.5, 1.0]


STDIN = (
    "Read two integers from the first line of standard input and print their sum.\n\n"
    "Sample Input:\n3 4\n\nSample Output:\n7\n"
)


@pytest.mark.parametrize(
    ("language", "template"),
    [
        ("python", "a, b = map(int, input().split())\nprint({})\n"),
        ("cpp", "#include <iostream>\nint main() {{ int a, b; std::cin >> a >> b; std::cout << ({}); }}\n"),
    ],
)
def test_samples_of_stdin_order_programs(http: httpx.Client, language: str, template: str) -> None:
    programs = [template.format(expression) for expression in ("a * b", "a + b", "a - b")]
    result = ranked(http, STDIN, *programs, language=language)
    assert (result["order"][0], result["evidence"]["entry_point"]) == (1, None)
    assert values(result, "examples") == [0.0, 1.0, 0.0]


def test_functions_of_other_languages_say_that_there_is_no_evidence(http: httpx.Client) -> None:
    result = ranked(http, HUMAN_EVAL, "int main() {}", "int f() {}", language="cpp")
    assert "Python" in result["completions"][0]["components"]["behavior"]["error"]["detail"]
    assert result["group"]["n_ok"] == 2


def test_a_completion_without_code_passes_nothing(http: httpx.Client) -> None:
    fenced = f"Here it is:\n```python\n{HUMAN_EVAL}{RIGHT}```\n"
    result = ranked(http, HUMAN_EVAL, "I cannot.", fenced, extract="last_fence")
    assert (result["order"], values(result, "examples")) == ([1, 0], [0.0, 1.0])


def test_a_reward_without_spec_runs_nothing(http: httpx.Client) -> None:
    answer = http.post("/reward", json={"items": [{"prompt": HUMAN_EVAL, "completions": [SORTED, RIGHT]}]}).json()
    (result,) = answer["results"]
    assert result["evidence"] is None
    assert set(result["completions"][0]["components"]) == {"rm"}


def test_a_reward_uses_examples_where_its_spec_names_them(http: httpx.Client) -> None:
    spec = {"terms": [{"name": "shown", "type": "examples", "weight": 2.0}]}
    items = [{"prompt": HUMAN_EVAL, "completions": [SORTED, FROM_ZERO, RIGHT]}]
    (result,) = http.post("/reward", json={"spec": spec, "items": items}).json()["results"]
    assert [one["reward"] for one in result["completions"]] == [0.0, 1.0, 2.0]
    items[0]["prompt"] = "Say hello."
    (result,) = http.post("/reward", json={"spec": spec, "items": items}).json()["results"]
    assert [one["reward"] for one in result["completions"]] == [None] * 3
    assert result["completions"][0]["components"]["shown"]["error"]["code"] == "no_examples"


def test_given_tests_come_first_by_name_too(http: httpx.Client) -> None:
    tests = {"kind": "assert", "asserts": ["assert f(1) == 2"]}
    wrong, right = "def f(x): return x", "def f(x): return x + 1"
    result = ranked(http, "Write f(x).", wrong, right, tests=tests, spec={"combine": "auto"})
    assert (result["order"], decided(result)) == ([1, 0], ["tests"])


def test_best_of_n_needs_no_tests(stack: Stack) -> None:
    with Client(stack.url) as client:
        best = client.best_of_n(HUMAN_EVAL, [SORTED, CONSTANT, RIGHT])
    assert (best.index, best.decided_by) == (2, "examples")


def test_without_executors_the_rest_orders_and_says_why(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(executors=0)
    with stack.client() as http:
        wait_for(lambda: http.get("/models").json()["models"], what="a scorer")
        result = ranked(http, HUMAN_EVAL, SORTED, RIGHT)
        spec = {"terms": [{"name": "examples", "type": "examples"}]}
        refused = http.post(
            "/reward", json={"spec": spec, "items": [{"prompt": HUMAN_EVAL, "completions": [SORTED, RIGHT]}]}
        )
    assert {one["components"]["examples"]["error"]["code"] for one in result["completions"]} == {"no_worker"}
    assert sorted(result["order"]) == [0, 1]
    assert result["group"]["n_ok"] == 2
    assert (refused.status_code, refused.json()["retryable"]) == (503, True)


def test_without_a_model_evidence_orders_alone(make_stack: Callable[..., Stack]) -> None:
    with make_stack(scorers=0).client() as http:
        item = {"prompt": HUMAN_EVAL, "completions": [SORTED, RIGHT]}
        spec = {"terms": [{"name": "examples", "type": "examples"}]}
        wait_for(lambda: http.post("/reward", json={"items": [item], "spec": spec}).is_success, what="an executor")
        result = ranked(http, HUMAN_EVAL, SORTED, RIGHT)
    assert (result["order"], values(result, "rm")) == ([1, 0], [None, None])


def test_a_deadline_leaves_no_reward_of_half_the_evidence(http: httpx.Client) -> None:
    endless = [f"    while True:\n        {number}\n" for number in range(24)]
    spec = {"terms": [{"name": "b", "type": "behavior", "budget_cpu_s": 10, "inputs": 200}], "on_missing": "null"}
    items = [{"prompt": HUMAN_EVAL, "completions": [RIGHT, *endless]}]
    answer = http.post("/reward", json={"items": items, "spec": spec, "deadline_ms": 1500})
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "partial"
    late = [one for one in answer.json()["results"][0]["completions"] if one["status"] == "timeout_queue"]
    assert late
    assert {(one["reward"], one["trainable"]) for one in late} == {(None, False)}


def test_evidence_is_cached_like_other_executions(http: httpx.Client) -> None:
    first, again = (ranked(http, HUMAN_EVAL, LOOP, SORTED) for _ in range(2))
    assert again == first


def test_weights_under_auto_are_refused(http: httpx.Client) -> None:
    spec = {"combine": "auto", "terms": [{"name": "b", "type": "behavior", "weight": 2}]}
    answer = http.post("/rank", json={"spec": spec, "items": [{"prompt": "p", "completions": ["a"]}]})
    assert (answer.status_code, "'b'" in answer.json()["detail"]) == (422, True)


SLEEPY = "    import time\n    time.sleep(0.4)\n    return [{}]\n"


@pytest.mark.parametrize("stdin", [False, True])
def test_hanging_up_stops_the_programs_that_are_observed(http: httpx.Client, stdin: bool) -> None:
    """Also between rounds: no program starts for a caller who has gone."""

    def depth() -> int:
        return int(http.get("/info").json()["queues"]["execute"]["depth"])

    wait_for(lambda: depth() == 0, what="an empty queue")
    prompt, programs = HUMAN_EVAL, [SLEEPY.format(number) for number in range(24)]
    if stdin:
        prompt, programs = STDIN, [f"import time\ntime.sleep(0.4)\nprint(7)  # {number}\n" for number in range(24)]
    item = {"prompt": prompt, "completions": programs}
    with contextlib.suppress(httpx.ReadTimeout):
        http.post("/rank", json={"items": [item]}, timeout=1.5)
    wait_for(lambda: depth() == 0, 6, "the queue to be empty")
    assert ranked(http, HUMAN_EVAL, SORTED, RIGHT)["order"] == [1, 0]


def test_a_group_stays_within_its_budget_whatever_its_programs_do(http: httpx.Client) -> None:
    programs = [RIGHT, *(f"    while True:\n        {number}\n" for number in range(15))]
    result = ranked(http, HUMAN_EVAL, *programs)
    evidence = result["evidence"]
    assert result["order"][0] == 0
    assert (evidence["cut_short"], evidence["settled"]) == (15, False)
    assert 0.3 < evidence["cpu_s"] < 1.5 + 16 * 0.04  # a killed program may run on for a tick
    spec = {"combine": "auto", "terms": [{"name": "e", "type": "examples"}, {"name": "b", "type": "behavior"}]}
    spec["terms"][1]["budget_cpu_s"] = 0.4  # type: ignore[index]
    assert ranked(http, HUMAN_EVAL, *programs, spec=spec)["evidence"]["cpu_s"] < evidence["cpu_s"]


def test_a_slow_program_that_is_right_is_given_a_second_try(http: httpx.Client) -> None:
    """It needs more than its share of the budget, and less than what the others leave."""
    slow = (
        "    import time\n    began = time.process_time()\n    while time.process_time() - began < 0.06: pass\n" + LOOP
    )
    quick = [SORTED.replace("sorted", name) for name in ("list", "set", "tuple", "sum", "len", "min", "max", "str")]
    result = ranked(http, HUMAN_EVAL, *quick, *(f"{wrong}    # {at}\n" for at in range(12) for wrong in quick), slow)
    assert result["order"][0] == len(result["order"]) - 1
    assert values(result, "examples")[-1] == 1.0


def test_stdin_inputs_go_to_those_who_can_still_win(http: httpx.Client) -> None:
    adds = ["a, b = map(int, input().split())\nprint(a + b)\n", "print(sum(map(int, input().split())))\n"]
    luck = "a, b = map(int, input().split())\nprint(7)\n"
    wrong = [f"print({number})\n" for number in range(8, 14)]
    result = ranked(http, STDIN, *wrong, luck, *adds)
    assert set(result["order"][:2]) == {7, 8}
    assert result["order"][2] == 6
    assert result["evidence"]["cpu_s"] < 3


def test_one_program_that_passes_settles_it(http: httpx.Client) -> None:
    result = ranked(http, STDIN, "print(8)\n", "print(sum(map(int, input().split())))\n")
    assert result["evidence"]["settled"] is True
    assert decided(result) == ["examples"]


def test_the_margin_says_how_sure_the_best_is(http: httpx.Client) -> None:
    """All agree; one against one; nobody passes."""
    same = [RIGHT, LOOP, "    out = []\n    for n in numbers:\n        out.append(max([n, *out]))\n    return out\n"]
    sure = ranked(http, HUMAN_EVAL, *same)
    split = ranked(http, 'def triple(n: int) -> int:\n    """Thrice."""\n', "    return n * 3\n", "    return n * 4\n")
    lost = ranked(http, HUMAN_EVAL, SORTED, CRASH)
    assert sure["group"]["margin"] == pytest.approx(1.0)
    assert split["group"]["margin"] == pytest.approx(0.5)
    assert lost["group"]["margin"] == 0.0
    with_tests = {"kind": "assert", "asserts": ["assert f(1) == 2"]}
    tested = ranked(http, "Write f(x).", "def f(x): return x", "def f(x): return x + 1", tests=with_tests)
    rewards = sorted(one["reward"] for one in tested["completions"])
    assert tested["group"]["margin"] == pytest.approx(rewards[1] - rewards[0])


def test_rounded_examples_allow_for_what_rounding_takes_away(http: httpx.Client) -> None:
    prompt = (
        "def mean(xs):\n    '''\n    >>> round(mean([1, 2, 2]), 2)\n    1.67\n"
        "    >>> round(mean([1, 1, 2]), 1)\n    1.3\n    '''\n"
    )
    result = ranked(http, prompt, "    return sum(xs) // len(xs)\n", "    return sum(xs) / len(xs)\n")
    assert values(result, "examples") == [0.0, 1.0]


def test_compiled_programs_are_observed_on_inputs_too(http: httpx.Client) -> None:
    """Compilers cost more than the budget of the group."""
    head = "#include <iostream>\nint main() {{ int a, b; std::cin >> a >> b; std::cout << ({}); }}\n"
    programs = [head.format(text) for text in ("7", "a + b", "b + a", "a - (-b)")]
    spec = {"combine": "auto", "terms": [{"name": name, "type": name} for name in ("examples", "behavior")]}
    spec["terms"][1]["budget_cpu_s"] = 0.3  # type: ignore[index]
    result = ranked(http, STDIN, *programs, language="cpp", spec=spec)
    assert result["order"][-1] == 0
    assert decided(result) == []  # three answer alike
    behaviors = values(result, "behavior")
    assert behaviors[0] is not None
    assert behaviors[1:] == pytest.approx([behaviors[1]] * 3)
    assert result["evidence"]["cpu_s"] > 0.3
