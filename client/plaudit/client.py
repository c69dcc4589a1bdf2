"""`Client`, which blocks, and `best_of_n`, which opens one for a single call.

- What a call does is decided once, without I/O, in `plaudit.calls` and `plaudit.retries`; `run` carries it out.
- One deadline bounds all attempts of a call.
- The server's errors are raised as the classes that they were there (`plaudit.errors`).
- Needs httpx and pydantic, nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

import httpx
from pydantic import BaseModel

from plaudit.calls import (
    BestOfN,
    BestOptions,
    Calls,
    ExecuteOptions,
    Items,
    JobUpdate,
    RankOptions,
    Request,
    RewardOptions,
    ScoreOptions,
    StreamedItem,
)
from plaudit.retries import AttemptOutcome, CallSteps, RetryPolicy
from plaudit.schemas import (
    ActivateAnswer,
    ExecuteAnswer,
    ExecuteItem,
    ExecuteRequest,
    Health,
    InfoAnswer,
    InlineTests,
    JobAccepted,
    JobStatus,
    LanguagesAnswer,
    Message,
    ModelsAnswer,
    RankAnswer,
    RankRequest,
    Readiness,
    ReplayAnswer,
    RewardAnswer,
    RewardItem,
    RewardRequest,
    ScoreAnswer,
    ScoreItem,
    ScoreRequest,
    TestsetAnswer,
)

T = TypeVar("T")


def http_options(url: str, api_key: str | None, max_connections: int) -> dict[str, Any]:
    """What both clients tell httpx."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
    return {"base_url": url, "headers": headers, "limits": limits}


def best_of_n(
    url: str,
    prompt: str | Sequence[Message | Mapping[str, Any]],
    completions: Sequence[str],
    tests: BaseModel | Mapping[str, Any] | None = None,
    *,
    api_key: str | None = None,
    timeout_s: float = 120.0,
    **options: Unpack[BestOptions],
) -> BestOfN:
    """The best of several completions of one prompt, by the service at `url`. For many calls share a `Client`.

    Args:
        url: Where the service listens, such as "http://127.0.0.1:8000".
        prompt: Text, or chat messages.
        completions: What to choose from.
        tests: Tests of the contract. With them the pass rate decides and the model breaks ties; without them the
            model decides alone.
        api_key: Key of the service, where it asks for one.
        timeout_s: How long the call may take over all its attempts, in seconds.
        **options: `BestOptions`: language, extract, limits, stop, spec, early_stop, …

    Returns:
        The winner with its index, the whole ranking, and the term that decided.

    Raises:
        InfraError: No completion got a reward, so that any choice would be a guess.
        Invalid: A value that the contract does not allow.
        Unreachable: No answer arrived in time.
        TypeError: An option that does not exist.

    Example:
        >>> import plaudit
        >>> tests = {"kind": "assert", "asserts": ["assert add(1, 2) == 3"]}
        >>> plaudit.best_of_n("http://127.0.0.1:8000", "Add a and b.", completions, tests).completion
    """
    with Client(url, api_key, timeout_s=timeout_s) as client:
        return client.best_of_n(prompt, completions, tests, **options)


class Client:
    """A blocking client with pooled connections, safe to share between threads. A context manager.

    Args:
        url: Where the service listens.
        api_key: Key of the service, where it asks for one.
        timeout_s: How long a call may take over all its attempts, in seconds; `deadline_ms` of a request goes before.
        max_tries: Failed attempts without a wait named by the server, after which a call raises.
        max_connections: Connections that are open at most.

    Example:
        >>> with Client("http://127.0.0.1:8000") as client:
        ...     answer = client.score([{"prompt": "Add a and b.", "completions": ["a + b", "a - b"]}])
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 120.0,
        max_tries: int = 6,
        max_connections: int = 64,
    ) -> None:
        self.calls = Calls(RetryPolicy(timeout_s, max_tries))
        self._http = httpx.Client(**http_options(url, api_key, max_connections))

    def run(self, steps: CallSteps[T]) -> T:
        """Carry out a call's steps and return its answer."""
        outcome: AttemptOutcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            outcome = None
            if isinstance(step, float):
                time.sleep(step)
                continue
            try:
                outcome = self._http.request(
                    step.method, step.path, headers=step.headers, content=step.body, timeout=step.timeout_s
                )
            except httpx.TransportError as error:
                outcome = error

    def score(self, items: Items[ScoreItem] | ScoreRequest, /, **options: Unpack[ScoreOptions]) -> ScoreAnswer:
        """Score completions with a reward model: `POST /score`.

        Args:
            items: Items with `prompt` and `completions`, as `ScoreItem` or dicts; or a whole `ScoreRequest`.
            **options: Fields of the request (`ScoreOptions`): model, on_overflow, calibrated, deadline_ms, …

        Returns:
            Per item a score of each completion, and the index of the best.

        Raises:
            Invalid: An item or an option has a value that the contract does not allow.
            Unreachable: No answer arrived in time.
            PlauditError: The class that the server's answer names: Overloaded, NoWorker, TooLarge, …

        Example:
            >>> answer = client.score([{"prompt": "Add a and b.", "completions": ["a + b", "a - b"]}])
            >>> answer.results[0].best
        """
        return self.run(self.calls.score(items, **options))

    def execute(
        self, items: Items[ExecuteItem] | ExecuteRequest, /, **options: Unpack[ExecuteOptions]
    ) -> ExecuteAnswer:
        r"""Run programs against tests in the sandbox: `POST /execute`.

        Args:
            items: Items with `language`, `programs` and `tests`, as `ExecuteItem` or dicts; or a whole
                `ExecuteRequest`.
            **options: Fields of the request (`ExecuteOptions`): use_cache, priority, deadline_ms, …

        Returns:
            Per item a verdict and a pass rate of each program. A wrong program is a verdict, not an exception.

        Raises:
            Invalid: An item or an option has a value that the contract does not allow.
            Unreachable: No answer arrived in time.
            PlauditError: The class that the server's answer names.

        Example:
            >>> tests = {"kind": "assert", "asserts": ["assert add(1, 2) == 3"]}
            >>> program = "def add(a, b):\\n    return a + b"
            >>> answer = client.execute([{"language": "python", "programs": [program], "tests": tests}])
            >>> answer.results[0].programs[0].verdict
        """
        return self.run(self.calls.execute(items, **options))

    def reward(self, items: Items[RewardItem] | RewardRequest, /, **options: Unpack[RewardOptions]) -> RewardAnswer:
        """Rewards of completions, by tests and by a model: `POST /reward`.

        Args:
            items: Items with `prompt`, `completions` and, where a term executes, `tests`, as `RewardItem` or dicts;
                or a whole `RewardRequest`.
            **options: Fields of the request (`RewardOptions`): spec, priority, deadline_ms, …

        Returns:
            Per item a reward of each completion with its components, and the group's statistics.

        Raises:
            Invalid: An item or an option has a value that the contract does not allow.
            Unreachable: No answer arrived in time.
            PlauditError: The class that the server's answer names.

        Example:
            >>> answer = client.reward([{"prompt": "Add.", "completions": completions, "tests": tests}])
            >>> [completion.reward for completion in answer.results[0].completions]
        """
        return self.run(self.calls.reward(items, **options))

    def rank(self, items: Items[RewardItem] | RankRequest, /, **options: Unpack[RankOptions]) -> RankAnswer:
        """Order completions by reward, best first: `POST /rank`.

        Args:
            items: Items as `reward` takes them; or a whole `RankRequest`.
            **options: Fields of the request (`RankOptions`): spec, early_stop, priority, deadline_ms, …

        Returns:
            What `reward` returns, and per item the `order` of its completions.

        Raises:
            Invalid: An item or an option has a value that the contract does not allow.
            Unreachable: No answer arrived in time.
            PlauditError: The class that the server's answer names.
        """
        return self.run(self.calls.rank(items, **options))

    def best_of_n(
        self,
        prompt: str | Sequence[Message | Mapping[str, Any]],
        completions: Sequence[str],
        tests: BaseModel | Mapping[str, Any] | None = None,
        **options: Unpack[BestOptions],
    ) -> BestOfN:
        """The best of several completions of one prompt.

        Args:
            prompt: Text, or chat messages.
            completions: What to choose from.
            tests: Tests of the contract (a type of `plaudit.schemas` or a dict). With them the pass rate decides and
                the model breaks ties; without them the model decides alone.
            **options: `BestOptions`: language, extract, limits, stop, spec, early_stop, deadline_ms, …

        Returns:
            The winner with its index, the whole ranking, and the term that decided.

        Raises:
            InfraError: No completion got a reward, so that any choice would be a guess.
            Invalid: A value that the contract does not allow.
            TypeError: An option that does not exist.

        Example:
            >>> tests = {"kind": "assert", "asserts": ["assert add(1, 2) == 3"]}
            >>> best = client.best_of_n("Add a and b.", completions, tests)
            >>> best.completion, best.decided_by
        """
        return self.run(self.calls.best_of_n(prompt, completions, tests, **options))

    def stream(self, request: Request, /, *, timeout_s: float = 3600.0) -> Iterator[StreamedItem]:
        """The items of a request as they finish, in that order. Leaving the loop early cancels the rest."""
        until = time.monotonic() + timeout_s
        accepted = self.submit(request)
        update = JobUpdate([], None, done=False)
        try:
            while not update.done:
                update = self.run(self.calls.updates(request, accepted, update.cursor, until))
                yield from update.items
        finally:
            if not update.done:
                self.cancel(accepted.job_id)

    def submit(self, request: Request, /) -> JobAccepted:
        """Send a whole request now and fetch its answer later, with `job` or `wait` (`Prefer: respond-async`)."""
        return self.run(self.calls.submit(request))

    def job(self, job_id: str, /, *, wait_s: float = 0.0, cursor: str | None = None) -> JobStatus:
        """What is new of a job since `cursor`, waiting at most `wait_s` seconds for something to be."""
        return self.run(self.calls.job(job_id, wait_s=wait_s, cursor=cursor))

    def wait(self, job_id: str, /, *, timeout_s: float = 3600.0) -> JobStatus:
        """A job's last status, with its answer. Raises Unreachable if it still runs after `timeout_s` seconds."""
        return self.run(self.calls.wait(job_id, timeout_s=timeout_s))

    def cancel(self, job_id: str, /) -> None:
        """Stop a job; what is done of it stays done."""
        self.run(self.calls.cancel(job_id))

    def put_testset(self, tests: InlineTests, /) -> TestsetAnswer:
        """Store a test suite; the answer's digest names it in `{"kind": "ref", "sha256": …}`."""
        return self.run(self.calls.put_testset(tests))

    def replay(self, request_id: str, /) -> ReplayAnswer:
        """What it takes to reproduce a request's verdicts: `GET /requests/{id}/replay`. Raises RequestUnknown."""
        return self.run(self.calls.replay(request_id))

    def models(self) -> ModelsAnswer:
        """What is served: `GET /models`."""
        return self.run(self.calls.models())

    def activate(
        self, model: str, revision: str | None = None, /, *, path: str | None = None, timeout_s: float = 600.0
    ) -> ActivateAnswer:
        """Swap a served model's revision (admin key).

        Args:
            model: The served model's name.
            revision: A digest that the deployment knows; with `path`, the digest that must be there.
            path: Folder or hub id of a checkpoint, as the scoring workers see it.
            timeout_s: How long the workers may take, in seconds.

        Raises:
            UsageError: Neither a revision nor a path was given.
            CheckpointRefused: A worker could not load the checkpoint; the one before stays.
            RevisionUnknown, ActivationRunning, Forbidden: As the server answers.
        """
        return self.run(self.calls.activate(model, revision, path=path, timeout_s=timeout_s))

    def languages(self) -> LanguagesAnswer:
        """What the executors run, with versions: `GET /languages`."""
        return self.run(self.calls.languages())

    def info(self) -> InfoAnswer:
        """Versions, limits, isolation level, models, queues: `GET /info`."""
        return self.run(self.calls.info())

    def health(self) -> Health:
        """Whether the API's process answers: `GET /health`."""
        return self.run(self.calls.health())

    def ready(self) -> Readiness:
        """Whether a scorer and an executor answer: `GET /ready`. "Not yet" is an answer, with its reasons."""
        return self.run(self.calls.ready())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
