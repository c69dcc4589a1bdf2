"""`Client`: every call of the API, blocking.

- What a call does is decided once, without I/O, in `plaudit.calls` and `plaudit.retries`; `run` carries it out.
- One deadline bounds all attempts of a call.
- A server error is raised here as the same class (`plaudit.errors`); no answer at all as `Unreachable`.
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
    AuditAnswer,
    AuditItem,
    AuditRequest,
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
from plaudit.transport import http_options, with_trace

T = TypeVar("T")


class Client:
    """A blocking client with pooled connections, safe to share between threads. A context manager.

    Every call raises the class that the server's answer names, or Unreachable if no answer arrived in time.

    Args:
        url: Where the service listens; `http+unix:/path/of/socket` for a Unix socket, `ray://NAME` for a deployment in
            the Ray cluster of this process.
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
        self._http = httpx.Client(**http_options(url, api_key, max_connections, httpx.HTTPTransport))

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
                    step.method, step.path, headers=with_trace(step.headers), content=step.body, timeout=step.timeout_s
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

        Example:
            >>> answer = client.rank([{"prompt": "Add.", "completions": completions, "tests": tests}])
            >>> answer.results[0].order
        """
        return self.run(self.calls.rank(items, **options))

    def audit(self, items: Items[AuditItem] | AuditRequest, /, **options: Unpack[ExecuteOptions]) -> AuditAnswer:
        r"""Say what test suites are worth before a policy is trained on them: `POST /audit`.

        Args:
            items: Items as `AuditItem` or dicts: `tests`, `reference`, `prompt`, …; or a whole `AuditRequest`.
            **options: Fields of the request (`ExecuteOptions`): use_cache, priority, deadline_ms, …

        Returns:
            Per item a report: verdict, problems, tests, mutation score, rates. A bad suite is a finding, no exception.

        Raises:
            Invalid, Unreachable, PlauditError: As `execute` raises them.

        Example:
            >>> item = {"tests": tests, "reference": "def add(a, b):\n    return a + b"}
            >>> client.audit([item]).results[0].problems
        """
        return self.run(self.calls.audit(items, **options))

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
                the model breaks ties; without them the prompt's examples, then what most programs answer alike, then
                consensus and the model.
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
        """The items of a request as they finish, in that order. Leaving the loop early cancels the rest.

        Args:
            request: A whole request: `ScoreRequest`, `ExecuteRequest`, `RewardRequest`, `RankRequest` or
                `AuditRequest`.
            timeout_s: How long all items may take together, in seconds.

        Returns:
            An iterator of items, each with its index in the request.

        Raises:
            Unreachable: Items are missing after `timeout_s`.
            PlauditError: The error that ended the request.

        Example:
            >>> for item in client.stream(request):
            ...     print(item.index, item.result)
        """
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
        """Send a whole request now and fetch its answer later, with `job` or `wait` (`Prefer: respond-async`).

        Args:
            request: A whole request, as for `stream`.

        Returns:
            The job's id, and how long its answer is kept.

        Raises:
            PlauditError: The class that the server's answer names, or Unreachable.

        Example:
            >>> accepted = client.submit(request)
            >>> client.wait(accepted.job_id).answer
        """
        return self.run(self.calls.submit(request))

    def job(self, job_id: str, /, *, wait_s: float = 0.0, cursor: str | None = None) -> JobStatus:
        """A job's state, and its items that finished since `cursor`.

        Args:
            job_id: Id of a job that `submit` returned.
            wait_s: How long to wait for news, in seconds.
            cursor: The `cursor` of an earlier answer. None: all items.

        Returns:
            The state, the new items, and once the job is done its whole answer.

        Raises:
            NotFound: No job of this caller has that id, or its answer has expired.

        Example:
            >>> status = client.job(accepted.job_id, wait_s=20)
            >>> status.state, len(status.items)
        """
        return self.run(self.calls.job(job_id, wait_s=wait_s, cursor=cursor))

    def wait(self, job_id: str, /, *, timeout_s: float = 3600.0) -> JobStatus:
        """Wait for a job to end.

        Args:
            job_id: Id of a job that `submit` returned.
            timeout_s: How long to wait, in seconds.

        Returns:
            Its last status, with the answer.

        Raises:
            Unreachable: It still runs after `timeout_s`.
            NotFound: No job of this caller has that id, or its answer has expired.

        Example:
            >>> client.wait(client.submit(request).job_id).state
        """
        return self.run(self.calls.wait(job_id, timeout_s=timeout_s))

    def cancel(self, job_id: str, /) -> None:
        """Stop a job. Items that have finished keep their results.

        Args:
            job_id: Id of a job that `submit` returned.

        Raises:
            NotFound: No job of this caller has that id, or its answer has expired.

        Example:
            >>> client.cancel(accepted.job_id)
        """
        self.run(self.calls.cancel(job_id))

    def put_testset(self, tests: InlineTests, /) -> TestsetAnswer:
        """Store a test suite, so that later requests can name it by its digest.

        Args:
            tests: The suite, as a type of `plaudit.schemas`.

        Returns:
            The digest, the number of tests, and how long the suite is kept.

        Raises:
            InvalidTests: No program can be judged by these tests.
            PlauditError: The class that the server's answer names, or Unreachable.

        Example:
            >>> stored = client.put_testset(AssertTests(kind="assert", asserts=["assert add(1, 2) == 3"]))
            >>> tests = {"kind": "ref", "sha256": stored.sha256}
        """
        return self.run(self.calls.put_testset(tests))

    def replay(self, request_id: str, /) -> ReplayAnswer:
        """The items and verdicts of an earlier request, to judge it again: `GET /requests/{id}/replay`.

        Args:
            request_id: The `X-Request-Id` of that request's answer.

        Returns:
            Per item the request, which can be posted again, and the verdicts that were given.

        Raises:
            RequestUnknown: No replay is kept under this id.

        Example:
            >>> [verdict.verdict for verdict in client.replay(request_id).items[0].given]
        """
        return self.run(self.calls.replay(request_id))

    def models(self) -> ModelsAnswer:
        """The served models: `GET /models`.

        Returns:
            Per model its revision, limits and measured parity.

        Raises:
            PlauditError: The class that the server's answer names.

        Example:
            >>> [model.revision for model in client.models().models]
        """
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

        Returns:
            The revision that scores from now on, and the previous one.

        Raises:
            UsageError: Neither a revision nor a path was given.
            CheckpointRefused: A worker could not load the checkpoint; the previous one continues to serve.
            RevisionUnknown, ActivationRunning, Forbidden: As the server answers.

        Example:
            >>> client.activate("default", path="/checkpoints/step-200").revision
        """
        return self.run(self.calls.activate(model, revision, path=path, timeout_s=timeout_s))

    def languages(self) -> LanguagesAnswer:
        """The languages that the executors run: `GET /languages`.

        Returns:
            Per language its version, aliases, kinds of tests and packages.

        Raises:
            PlauditError: The class that the server's answer names.

        Example:
            >>> [language.name for language in client.languages().languages]
        """
        return self.run(self.calls.languages())

    def info(self) -> InfoAnswer:
        """The deployment: versions, limits, isolation level, models, languages, queues: `GET /info`.

        Returns:
            All of these.

        Raises:
            PlauditError: The class that the server's answer names.

        Example:
            >>> client.info().isolation
        """
        return self.run(self.calls.info())

    def health(self) -> Health:
        """Whether the API's process answers: `GET /health`.

        Returns:
            Its status, always "ok".

        Raises:
            Unreachable: It does not answer.

        Example:
            >>> client.health().status
        """
        return self.run(self.calls.health())

    def ready(self) -> Readiness:
        """Whether the deployment can work: `GET /ready`.

        Returns:
            `ready`, and the reasons if it is not. "Not ready" is an answer, not an exception.

        Raises:
            Unreachable: The API does not answer.

        Example:
            >>> client.ready().reasons
        """
        return self.run(self.calls.ready())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
