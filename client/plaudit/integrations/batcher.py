"""Rows of a trainer in, ratings out: what every plug-in of `plaudit.integrations.rewards` stands on.

A trainer has rows (a prompt, a completion, a data set's label); the service has groups. `Rater` joins rows of one
prompt and label into one item, all items into one request to `/reward`, and takes the answer apart again. Its calls are
steps without I/O, so that blocking and awaiting trainers run the same ones. Three things it promises:

- A fault of ours is a `Rating` with `why` and no reward, for the rows it struck and no others; rows whose fault another
  try may mend are asked again until the deadline.
- One row that cannot be (a program as large as a book) does not take its neighbours with it.
- What the caller configured wrongly is raised at once, because waiting would not mend it: a key, a model's name, an
  option that does not exist, a limit beyond the service's, a label without tests that can be read. Pass rates and a
  model's scores never mix in one column: the model alone decides only under `reward="model"` or a spec of such terms.

Trainers that hand over one row at a time still do so from many threads or tasks at once; `rate_one` waits `gather_s`
for those others, and one request goes out for all. A Rater may be pickled and forked: connections stay behind.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack, get_args

from pydantic import TypeAdapter, ValidationError

from plaudit.async_client import AsyncClient
from plaudit.calls import Calls
from plaudit.client import Client
from plaudit.errors import InfraError, Invalid, PlauditError, Poisoned, TooLarge
from plaudit.extract import answer as answer_of
from plaudit.extract import code_of, last_fence
from plaudit.graders import Grader
from plaudit.labels import Tested, required_tests, tests_of
from plaudit.options import known_language, nearest, refuse_unknown
from plaudit.retries import CallSteps
from plaudit.schemas import (
    BY_TESTS_FIRST,
    CompletionReward,
    ExecuteTerm,
    Extract,
    LimitsSpec,
    Message,
    Priority,
    RewardItem,
    RewardRequest,
    RewardSpec,
    ScoreTerm,
    Stop,
)

MAX_ITEMS = 256  # of one request; what a deployment takes by default
MAX_TRIES = 1_000_000  # the deadline ends a call, not a count: an API takes longer to restart than six tries
AGAIN_S = 0.5  # before rows that a fault struck are asked for again
NO_SUCH_LANGUAGE = frozenset({"language_unknown", "language_unavailable"})
BY_TESTS = RewardSpec(terms=[ExecuteTerm(name="tests", type="execute")])
BY_MODEL = RewardSpec(terms=[ScoreTerm(name="rm", type="score", on_overflow="truncate_left")])
_ROLES = {"system": "system", "developer": "system", "assistant": "assistant", "tool": "tool", "function": "tool"}


Reward = Literal["auto", "tests", "model"]


class Misconfigured(Invalid, ValueError):
    """What was written cannot be: an option's value, or the tests of a row. No retry and no fallback mends it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One completion. `prompt` is text or chat messages; `label` is what the data set has beside it under `field`."""

    prompt: Any
    completion: str
    label: Any = None
    field: str = "label"


@dataclass(frozen=True, slots=True)
class Rating:
    """A reward and what it is made of; or, with `reward` None, why there is none."""

    reward: float | None
    pass_rate: float | None = None
    rm: float | None = None
    why: PlauditError | None = None
    again: bool = False  # the fault struck this row only, and another try may mend it

    def value(self) -> float:
        """The reward. Raises what stood in its way: nobody gets a number by accident."""
        if self.reward is None:
            raise self.why or InfraError("no reward, and no reason given")
        return self.reward

    def numbers(self, fallback: float | None = None) -> dict[str, float]:
        """Always the same keys, numbers only. Without a reward, `fallback` and `reward_ok` 0, or raises."""
        score = self.value() if self.reward is not None or fallback is None else fallback
        return {
            "score": score,
            "reward_ok": float(self.reward is not None),
            "pass_rate": self.pass_rate or 0.0,
            "rm": self.rm or 0.0,
        }


class Options(TypedDict, total=False):
    """How rows are rated. Without `spec` by `reward`:

    auto   the default: by the tests in the label first; the reward model, where there is one, breaks ties
    tests  by the tests alone: the pass rate and nothing else
    model  by the reward model's raw score, whatever the label holds
    """

    reward: Reward
    spec: RewardSpec | Mapping[str, Any] | None
    language: str
    extract: Extract
    limits: LimitsSpec | Mapping[str, Any]
    stop: Stop
    priority: Priority
    timeout_s: float
    gather_s: float
    max_connections: int


_DEFAULTS: Options = {
    "reward": "auto",
    "spec": None,
    "language": "python",
    "extract": "last_fence",
    "limits": {},
    "stop": "never",
    "priority": "normal",
    "timeout_s": 120.0,
    "gather_s": 0.01,
    "max_connections": 64,
}


class Rater:
    """Rates rows by a running service."""

    def __init__(self, url: str, api_key: str | None = None, **options: Unpack[Options]) -> None:
        refuse_unknown(options, Options.__annotations__, "Rater")
        self._made_of = (url, api_key, options)
        chosen: Any = {**_DEFAULTS, **options}
        self.spec = _spec(chosen["spec"], chosen["reward"])
        self.limits: LimitsSpec = _valid("limits", TypeAdapter(LimitsSpec), chosen["limits"])
        self.language: str = _known("language", chosen["language"])
        self.extract: Extract = _one_of("extract", chosen["extract"], get_args(Extract))
        self.stop: Stop = _valid("stop", TypeAdapter(Stop), chosen["stop"])
        self.priority: Priority = _one_of("priority", chosen["priority"], get_args(Priority))
        self.timeout_s = _seconds("timeout_s", chosen["timeout_s"])
        self.gather_s = _seconds("gather_s", chosen["gather_s"], least=0.0)
        connections = chosen["max_connections"]
        if type(connections) is not int or connections < 1:
            raise Misconfigured(f"max_connections: {connections!r} is not a whole number from 1")
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise Misconfigured(f"url: {url!r} does not begin with http:// or https://")
        self._connect: dict[str, Any] = {
            "url": url,
            "api_key": api_key,
            "timeout_s": self.timeout_s,
            "max_tries": MAX_TRIES,
            "max_connections": connections,
        }
        self._begin()
        _alive.add(self)

    def _begin(self) -> None:
        """Without connections and without waiters: at first, and in the child of a fork, whose parent keeps them."""
        self._lock = threading.Lock()
        self._waiting: list[tuple[Row, Future[Rating]]] = []
        self._client: Client | None = None
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = weakref.WeakKeyDictionary()

    @property
    def needs_tests(self) -> bool:
        """Whether rows are rated by the tests in their labels."""
        return (self.spec or BY_TESTS_FIRST).executes

    def close(self) -> None:
        """Give the blocking connections back. The next call opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    async def close_async(self) -> None:
        """Give those of the running event loop back."""
        loop = self._loops.pop(asyncio.get_running_loop(), None)
        if loop is not None:
            await loop.client.close()

    def __reduce__(self) -> tuple[Callable[..., Rater], tuple[Any, ...]]:
        return _rater, self._made_of

    # --- groups ------------------------------------------------------------------------------------------------------

    def rate(self, rows: Sequence[Row]) -> list[Rating]:
        """One rating a row, in order."""
        return _checked(self._rate(rows, together=True))

    def _rate(self, rows: Sequence[Row], *, together: bool) -> list[Rating]:
        client = self._blocking()
        return client.run(self._rating(client.calls, rows, together=together))

    async def rate_async(self, rows: Sequence[Row]) -> list[Rating]:
        """The same, awaited."""
        return _checked(await self._rate_async(rows, together=True))

    async def _rate_async(self, rows: Sequence[Row], *, together: bool) -> list[Rating]:
        client = self._awaiting().client
        return await client.run(self._rating(client.calls, rows, together=together))

    # --- one at a time -----------------------------------------------------------------------------------------------

    def rate_one(self, row: Row) -> Rating:
        """One row, sent with those of all other threads that come within `gather_s`."""
        mine: Future[Rating] = Future()
        with self._lock:
            self._waiting.append((row, mine))
            first = len(self._waiting) == 1
        if first:
            time.sleep(self.gather_s)
            with self._lock:
                taken, self._waiting = self._waiting, []
            try:
                ratings = self._rate([row for row, _ in taken], together=False)
                for (_, one), rating in zip(taken, ratings, strict=True):
                    one.set_result(rating)
            except PlauditError as error:
                for _, one in taken:
                    one.set_exception(error)
            finally:  # whatever happened, nobody waits for ever
                for _, one in taken:
                    one.cancel()
        return _checked([mine.result()])[0]

    async def rate_one_async(self, row: Row) -> Rating:
        """One row, sent with those of all other tasks of this event loop that come within `gather_s`."""
        loop = self._awaiting()
        mine: asyncio.Future[Rating] = asyncio.get_running_loop().create_future()
        loop.waiting.append((row, mine))
        if len(loop.waiting) == 1:
            task = asyncio.create_task(self._send_gathered(loop))
            loop.tasks.add(task)
            task.add_done_callback(loop.tasks.discard)
        return _checked([await mine])[0]

    async def _send_gathered(self, loop: _Loop) -> None:
        await asyncio.sleep(self.gather_s)
        taken, loop.waiting = [pair for pair in loop.waiting if not pair[1].done()], []
        try:
            ratings = await self._rate_async([row for row, _ in taken], together=False)
            for (_, one), rating in zip(taken, ratings, strict=True):
                if not one.done():
                    one.set_result(rating)
        except PlauditError as error:
            for _, one in taken:
                if not one.done():
                    one.set_exception(error)
        finally:
            for _, one in taken:
                one.cancel()

    # --- what is asked -----------------------------------------------------------------------------------------------

    def _rating(self, calls: Calls, rows: Sequence[Row], *, together: bool) -> CallSteps[list[Rating]]:
        """Ask for all rows, and again for those that a passing fault struck, until the deadline.

        Rows of one call stand `together`: what is wrong with one of them is raised before more is asked.
        """
        until = time.monotonic() + self.timeout_s
        ratings: list[Rating | None] = [None] * len(rows)
        entries: list[_Entry] = []
        for at, row in enumerate(rows):
            try:
                entries.append(self._entry(at, row))
            except Invalid as error:
                ratings[at] = Rating(None, why=error)
                if together:
                    raise
        while entries:
            for at, rating in (yield from self._asked(calls, entries, until, together=together)).items():
                ratings[at] = rating
            entries = [entry for entry in entries if (had := ratings[entry.at]) is not None and had.again]
            if time.monotonic() + AGAIN_S >= until:
                break
            if entries:
                yield AGAIN_S
        return [rating or Rating(None, why=InfraError("not rated")) for rating in ratings]

    def _asked(
        self, calls: Calls, entries: list[_Entry], until: float, *, together: bool
    ) -> CallSteps[dict[int, Rating]]:
        """One request; or two halves of it where the service says that something in it cannot be."""
        groups: dict[str, list[_Entry]] = {}
        for entry in entries:
            groups.setdefault(entry.group, []).append(entry)
        batches = list(groups.values())
        found: dict[int, Rating] = {}
        for start in range(0, len(batches), MAX_ITEMS):
            batch = batches[start : start + MAX_ITEMS]
            items = [
                one[0].item.model_copy(update={"completions": [e.item.completions[0] for e in one]}) for one in batch
            ]
            left_ms = max(1, int(1000 * (until - time.monotonic())))
            wanted = {} if self.spec is None else {"spec": self.spec}
            request = RewardRequest(**wanted, items=items, priority=self.priority, deadline_ms=left_ms)
            asked = [entry for one in batch for entry in one]
            try:
                answer = yield from calls.reward(request)
            except (Invalid, TooLarge) as error:
                if len(asked) == 1:
                    at = asked[0].at
                    refused = error if isinstance(error, TooLarge) else Misconfigured(f"row {at}: {error.detail}")
                    found[at] = Rating(None, why=refused)
                    if together:
                        _checked([found[at]])
                    continue
                middle = len(asked) // 2
                for half in (asked[:middle], asked[middle:]):
                    found.update((yield from self._asked(calls, half, until, together=together)))
            except PlauditError as error:
                if not error.retryable:
                    raise
                found.update({entry.at: Rating(None, why=error) for entry in asked})
            else:
                told = [one for result in answer.results for one in result.completions]
                spec = self.spec or BY_TESTS_FIRST
                found.update({entry.at: _rating(spec, one) for entry, one in zip(asked, told, strict=True)})
        return found

    def _entry(self, at: int, row: Row) -> _Entry:
        """A row as an item of one completion. Raises Misconfigured for a label without tests where they are needed."""
        spec = self.spec or BY_TESTS_FIRST
        tested: Tested | None = None
        language, extract, completion = self.language, self.extract, _scrubbed(row.completion)
        if spec.executes:
            tested = _tested(at, row)
            language = _known("label", tested.language or self.language)
            only = all(isinstance(term, ExecuteTerm) for term in spec.terms)
            extract, completion = self._program(completion, language, only=only)
        prompt = _prompt(row.prompt)
        tests = tested.graded(language, Grader()) if tested else None
        item = RewardItem(
            prompt=prompt,
            completions=[completion],
            language=language,
            extract=extract,
            tests=tests,
            limits=self.limits,
            stop=self.stop,
        )
        return _Entry(at, item, item.model_dump_json(exclude={"completions"}))

    def _program(self, completion: str, language: str, *, only: bool) -> tuple[Extract, str]:
        """What is sent of a completion: the program alone where nothing else is looked at."""
        if self.extract == "none":
            return "none", completion
        code = code_of(completion, language)
        if code is None:
            return "last_fence", "" if only else answer_of(completion)
        program = code.text
        if only:
            return "none", program
        text = answer_of(completion)
        return "last_fence", text if (last_fence(text) or "").strip() == program.strip() else _fenced(program)

    # --- connections -------------------------------------------------------------------------------------------------

    def _blocking(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = Client(**self._connect)
                weakref.finalize(self, self._client.close).atexit = False
            return self._client

    def _awaiting(self) -> _Loop:
        running = asyncio.get_running_loop()
        if running not in self._loops:
            self._loops[running] = _Loop(AsyncClient(**self._connect))
        return self._loops[running]


def _checked(ratings: list[Rating]) -> list[Rating]:
    """Raises what is wrong with the configuration or the data set: no rating of the others makes up for it."""
    for rating in ratings:
        if isinstance(rating.why, Misconfigured):
            raise rating.why
    return ratings


# --- options ---------------------------------------------------------------------------------------------------------


def _spec(spec: Any, reward: Any) -> RewardSpec | None:
    """What the service is told; None: by the tests first, which is its own default."""
    _one_of("reward", reward, get_args(Reward))
    if spec is None:
        return {"auto": None, "tests": BY_TESTS, "model": BY_MODEL}[reward]
    if reward != "auto":
        raise Misconfigured(f"reward: {reward!r} and a spec exclude each other; give one of them")
    return _valid("spec", TypeAdapter(RewardSpec), spec)  # type: ignore[no-any-return]


def _valid(name: str, kind: TypeAdapter[Any], value: Any) -> Any:
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (name, *first["loc"])))
        hint = ""
        if first["type"] == "extra_forbidden" and name == "limits":
            hint = f"; {nearest(str(first['loc'][-1]), set(LimitsSpec.model_fields))}"
        raise Misconfigured(f"{place}: {first['msg'].removeprefix('Value error, ')}{hint}") from None


def _one_of(name: str, value: Any, known: Sequence[Any]) -> Any:
    if value not in known:
        raise Misconfigured(f"{name}: {value!r}; there are {', '.join(known)}")
    return value


def _known(name: str, language: Any) -> str:
    try:
        return known_language(language)
    except ValueError as error:
        raise Misconfigured(f"{name}: {error}") from None


def _seconds(name: str, value: Any, least: float | None = None) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (least is None and value == 0):
        raise Misconfigured(f"{name}: {value!r} is not a number of seconds{'' if least is not None else ' above 0'}")
    return float(value)


def _tested(at: int, row: Row) -> Tested:
    """The tests of a row. Raises Misconfigured, naming row and field, where there are none that can be read."""
    try:
        return required_tests(_plain(row.label), row.field)
    except Invalid as error:
        way = 'To be rewarded by the model alone, say reward="model"'
        raise Misconfigured(f"row {at}: {error.detail}. {way}") from None


def has_tests(label: Any) -> bool:
    """Whether a label holds tests, or sets out to."""
    try:
        return tests_of(_plain(label)) is not None
    except Invalid:
        return True


def _plain(label: Any) -> Any:
    """A label as lists and dicts, whatever array type a data frame made of them."""
    if callable(as_list := getattr(label, "tolist", None)):
        label = as_list()
    if isinstance(label, tuple):
        label = list(label)
    if isinstance(label, Mapping):
        return {name: _plain(part) for name, part in label.items()}
    return label


def _fenced(program: str) -> str:
    """A program alone in its fence, for a completion in which other fences follow it."""
    longest = max(map(len, re.findall("`+", program)), default=0)
    mark = "`" * max(3, longest + 1)
    return f"{mark}\n{program.rstrip()}\n{mark}\n"


def _scrubbed(text: str) -> str:
    """Halves of surrogate pairs, which no encoding can write, become question marks."""
    return text.encode("utf-8", "replace").decode()


def _rater(url: str, api_key: str | None, options: Options) -> Rater:
    return Rater(url, api_key, **options)


_alive: weakref.WeakSet[Rater] = weakref.WeakSet()


def _after_fork() -> None:
    for rater in _alive:
        rater._begin()


os.register_at_fork(after_in_child=_after_fork)


class _Loop:
    """What belongs to one event loop."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.waiting: list[tuple[Row, asyncio.Future[Rating]]] = []
        self.tasks: set[asyncio.Task[None]] = set()


@dataclass(frozen=True, slots=True)
class _Entry:
    at: int
    item: RewardItem
    group: str  # rows of one group differ in their completion only


def _prompt(prompt: Any) -> str | list[Message]:
    """Text, or messages in the contract's roles; of parts of a message, the text."""
    if isinstance(prompt, str):
        return _scrubbed(prompt)
    if prompt is None:
        return ""
    return [Message(role=_ROLES.get(turn["role"], "user"), content=_scrubbed(text_of(turn))) for turn in prompt]  # type: ignore[arg-type]


def text_of(message: Mapping[str, Any]) -> str:
    """A message's text, whichever of the two ways it is written in."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))


def _rating(spec: RewardSpec, told: CompletionReward) -> Rating:
    parts = told.components
    run = [parts[term.name].value for term in spec.terms if isinstance(term, ExecuteTerm) and term.name in parts]
    scored = [parts[term.name].value for term in spec.terms if isinstance(term, ScoreTerm) and term.name in parts]
    if told.trainable and told.reward is not None:
        return Rating(told.reward, run[0] if run else None, scored[0] if scored else None)
    errors = [part.error for part in parts.values() if part.error is not None]
    if wrong := next((error for error in errors if error.code in NO_SUCH_LANGUAGE), None):
        return Rating(None, why=Misconfigured(f"language: {wrong.detail}"))
    detail = "; ".join(sorted({f"{error.code}: {error.detail}" for error in errors})) or told.status
    if told.status == "invalid":
        return Rating(None, why=Invalid(detail))
    if told.status == "infra_error" and not all(error.retryable for error in errors):
        return Rating(None, why=Poisoned(detail))
    return Rating(None, why=InfraError(detail), again=True)
