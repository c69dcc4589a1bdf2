"""The HTTP contract as types: what a request may say and what an answer says. The OpenAPI document comes from here.

Requests forbid unknown fields (422 with the path). Two families never mix: a *verdict* is how a program fared
(`status: "ok"`, trainable), a *status* other than "ok" is how the service fared (value null, not trainable).
"""

from __future__ import annotations

import base64
import math
from keyword import iskeyword
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Base64Encoder, BaseModel, ConfigDict, EncodedBytes, Field, model_validator
from pydantic_core import PydanticCustomError

from plaudit.grading import Compare, Grading, Judge, Level, MissingModules, Position, Verdict

Status = Literal["ok", "timeout_queue", "infra_error", "cancelled", "invalid"]
Completeness = Literal["complete", "partial"]
Priority = Literal["high", "normal", "low"]

Id = Annotated[str, Field(min_length=1, max_length=256)]
Text = Annotated[str, Field(max_length=64 * 1024 * 1024)]  # a bare `str` would let half a surrogate pair in
DeadlineMs = Annotated[int, Field(ge=1, le=86_400_000, description="budget from arrival, in milliseconds")]


class Strict(BaseModel):
    """Requests: unknown fields are errors, and so are NaN and infinity (JSON has neither)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Answer(BaseModel):
    """Answers tolerate fields of a newer server, so that an older client goes on."""

    model_config = ConfigDict(extra="ignore", frozen=True)


MAX_NESTING = 100  # lists and objects within each other; parsers and serializers give up somewhere beyond


def _exact(value: Any) -> Any:
    """A value that JSON can say and say back: no NaN, no infinity, no half surrogate pair, no bottomless nesting."""
    left = [(value, 0)]
    while left:
        part, depth = left.pop()
        if depth > MAX_NESTING:
            raise ValueError(f"more than {MAX_NESTING} lists and objects within each other")
        match part:
            case float(number) if not math.isfinite(number):
                raise ValueError("NaN and infinity are no JSON numbers")
            case str(text):
                try:
                    text.encode()
                except UnicodeEncodeError:
                    raise ValueError("half of a surrogate pair is no text") from None
            case list(parts):
                left += [(one, depth + 1) for one in parts]
            case dict(fields):
                left += [(one, depth + 1) for one in (*fields.keys(), *fields.values())]
    return value


# --- shared by requests ----------------------------------------------------------------------------------------------


class Message(Strict):
    role: Literal["system", "user", "assistant", "tool"]
    content: Text


Prompt = Annotated[Text | Annotated[list[Message], Field(min_length=1)], Field(description="text, or chat messages")]


class LimitsSpec(Strict):
    """Limits of one test's run; each at most the deployment's ceiling (`GET /info`)."""

    cpu_s: Annotated[float, Field(gt=0)] = 5.0
    wall_s: Annotated[float | None, Field(gt=0)] = None
    memory_mb: Annotated[int, Field(ge=16)] = 512
    output_kb: Annotated[int, Field(ge=1)] = 1024
    processes: Annotated[int, Field(ge=1)] = 64


class TestsBase(Strict):
    prelude: Annotated[Text, Field(description="text that the program sees before its own first line")] = ""


class StrictBase64(Base64Encoder):
    """Line breaks aside, every letter counts: what is no base64 is an error, not other bytes."""

    @classmethod
    def decode(cls, data: bytes) -> bytes:
        try:
            return base64.b64decode(b"".join(data.split()), validate=True)
        except ValueError as error:
            raise PydanticCustomError("base64_decode", "not base64: {error}", {"error": str(error)}) from None


File = Annotated[bytes, EncodedBytes(encoder=StrictBase64), Field(description="base64")]
FileName = Annotated[str, Field(min_length=1, max_length=255)]


def _entry_point(name: str) -> str:
    parts = name.split(".")
    if all(part.isidentifier() and not iskeyword(part) for part in parts):
        return name
    bare = name.replace("()", "")
    if bare != name and all(part.isidentifier() for part in bare.split(".")):
        raise ValueError(f"{name!r} is a call and not a name; write {bare!r}: the method of a fresh instance")
    raise ValueError(f"{name!r} is not a name that a program can define; write 'f' or 'Class.method'")


def _entry_points(names: str) -> str:
    return "|".join(_entry_point(name) for name in names.split("|"))


EntryPoint = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_entry_point)]
EntryPoints = Annotated[
    str,
    Field(min_length=1, max_length=500, description="`f`, `Class.method`, or `Class.f|f`: the first that is defined"),
    AfterValidator(_entry_points),
]


class AssertTests(TestsBase):
    kind: Literal["assert"]
    asserts: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    setup: Text = ""
    entry_point: EntryPoint | None = None


Exact = Annotated[Any, AfterValidator(_exact)]


class FunctionCase(Strict):
    args: list[Exact] = []
    kwargs: dict[Text, Exact] = {}
    expected: Exact
    also: Annotated[list[Exact], Field(max_length=64, description="other values that are right, too")] = []


class FunctionTests(TestsBase):
    kind: Literal["function"]
    entry_point: EntryPoints
    cases: Annotated[list[FunctionCase], Field(min_length=1)]
    rel_tol: Annotated[float | None, Field(ge=0, lt=1)] = None


class CheckTests(TestsBase):
    kind: Literal["check"]
    test: Annotated[str, Field(min_length=1, description="Python source that defines check(candidate)")]
    entry_point: EntryPoint
    prompt: Text = ""


class PytestTests(TestsBase):
    kind: Literal["pytest"]
    source: Annotated[Text, Field(min_length=1, description="a test file: functions, classes, fixtures")]
    files: Annotated[dict[FileName, File], Field(description="beside the test file, by name")] = {}
    entry_point: Annotated[EntryPoint | None, Field(description="a name that the program must have")] = None


class UnittestTests(TestsBase):
    kind: Literal["unittest"]
    source: Annotated[Text, Field(min_length=1, description="a test file: TestCase classes")]
    files: Annotated[dict[FileName, File], Field(description="beside the test file, by name")] = {}
    entry_point: Annotated[EntryPoint | None, Field(description="a name that the program must have")] = None


class HelperProgram(Strict):
    language: Annotated[str, Field(min_length=1, max_length=64)]
    source: Annotated[Text, Field(min_length=1)]


class StdioTestCase(Strict):
    stdin: Text = ""
    stdout: Annotated[
        Text | Annotated[list[Text], Field(min_length=1, max_length=16)],
        Field(description="the right answer, or several; with a checker or an interactor what its answer file holds"),
    ] = ""
    files: Annotated[dict[FileName, File], Field(description="in the program's working folder, by name")] = {}


class StdioTests(TestsBase):
    kind: Literal["stdio"]
    cases: Annotated[list[StdioTestCase], Field(min_length=1)]
    compare: Compare = "rstrip"
    rel_tol: Annotated[float | None, Field(ge=0, lt=1)] = None
    checker: Annotated[
        HelperProgram | None, Field(description="reads input, output and answer; accepts, scores or refuses")
    ] = None
    interactor: Annotated[HelperProgram | None, Field(description="a program joined to the judged one by pipes")] = None

    @model_validator(mode="after")
    def _one_decides(self) -> StdioTests:
        """A comparison, a checker or an interactor: only the last two can do without an answer, and take one."""
        if self.checker is not None and self.interactor is not None:
            raise ValueError("checker and interactor: a suite takes one of them, not both")
        who = "checker" if self.checker is not None else "interactor" if self.interactor is not None else None
        for field in ("compare", "rel_tol") if who is not None else ():
            if field in self.model_fields_set:
                raise ValueError(f"{field}: the {who} decides, so nothing is compared; leave out one of the two")
        for at, case in enumerate(self.cases):
            if who is None and "stdout" not in case.model_fields_set:
                raise ValueError(f"cases.{at}.stdout: missing; only with a checker or an interactor can it be left out")
            if who is not None and not isinstance(case.stdout, str):
                raise ValueError(f"cases.{at}.stdout: the {who} reads one answer, not a list of {len(case.stdout)}")
        return self


class ScriptTests(TestsBase):
    kind: Literal["script"]
    source: Annotated[Text, Field(min_length=1, description="run with the program; exit code 0 is passed")]
    position: Annotated[
        Position,
        Field(description="append: after the program, one text; replace: alone, the program beside it as `program.*`"),
    ] = "append"


class RefTests(Strict):
    kind: Literal["ref"]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


InlineTests = Annotated[
    AssertTests | FunctionTests | CheckTests | PytestTests | UnittestTests | StdioTests | ScriptTests,
    Field(discriminator="kind"),
]
Tests = Annotated[
    AssertTests | FunctionTests | CheckTests | PytestTests | UnittestTests | StdioTests | ScriptTests | RefTests,
    Field(discriminator="kind"),
]


class StopAfter(Strict):
    after: Annotated[int, Field(ge=1, description="stop after this many failed tests")]


class OptionsSpec(Strict):
    """How to judge, and what to do beside it. Each is part of a result's identity."""

    fresh_interpreter: Annotated[
        bool, Field(description="start a new Python for every run (`python3 main.py`), not a fork of a warm one")
    ] = False
    grading: Annotated[
        Grading,
        Field(
            description="split: tests in a process of their own; together: in the program's, which could forge its "
            "verdict; auto: split, and together what split cannot judge"
        ),
    ] = "split"
    run_main: Annotated[
        bool | None, Field(description="whether the program's `__main__` guard runs; null: only in `stdio`, `script`")
    ] = None
    control: Annotated[
        bool, Field(description="try suites of code on a program that answers nothing, and refuse those that it passes")
    ] = True
    missing_modules: Annotated[
        MissingModules,
        Field(description="of a program that imports what this deployment lacks: it fails, or is `invalid`"),
    ] = "failure"
    check_determinism: Annotated[bool, Field(description="judge twice; flag `nondeterministic` if they differ")] = False
    audit: Annotated[bool, Field(description="flags for what a Python program was seen doing: hints")] = False


Stop = Literal["never", "first_failure"] | StopAfter
Extract = Literal["none", "last_fence"]


# --- POST /score -----------------------------------------------------------------------------------------------------


class ScoreItem(Strict):
    id: Id | None = None
    prompt: Prompt
    completions: Annotated[list[Text], Field(min_length=1)]


class ScoreRequest(Strict):
    model: Id = "default"
    items: Annotated[list[ScoreItem], Field(min_length=1)]
    on_overflow: Literal["error", "truncate_left"] = "error"
    calibrated: bool = False
    priority: Priority = "normal"
    deadline_ms: DeadlineMs | None = None


class Problem(Answer):
    """Why one result has no value: a code to branch on and a sentence to read."""

    code: str
    detail: str
    retryable: bool = False


class CompletionScore(Answer):
    status: Status
    score: float | None = Field(None, description="raw logit, unbounded")
    pass_probability: float | None = Field(None, description="by the checkpoint's own calibration, if asked for")
    steps: list[float] | None = Field(None, description="raw logit of each step; of process reward models only")
    tokens: int | None = None
    truncated: bool = False
    cached: bool = False
    trainable: bool
    error: Problem | None = None


class ScoreResult(Answer):
    id: str | None = None
    best: int | None = Field(None, description="index of the highest score; null if none")
    completions: list[CompletionScore]


class ModelRef(Answer):
    name: str
    revision: str | None = None


class Timing(Answer):
    queue_ms: float = 0.0
    compute_ms: float = 0.0


class ScoreAnswer(Answer):
    request_id: str
    status: Completeness
    model: ModelRef
    results: list[ScoreResult]
    timing: Timing


# --- POST /execute ---------------------------------------------------------------------------------------------------


class ExecuteItem(Strict):
    id: Id | None = None
    language: Annotated[str, Field(min_length=1, max_length=64)]
    programs: Annotated[list[Text], Field(min_length=1)]
    extract: Extract = "none"
    tests: Tests
    limits: LimitsSpec = LimitsSpec()
    stop: Stop = "never"
    options: OptionsSpec = OptionsSpec()


class ExecuteRequest(Strict):
    items: Annotated[list[ExecuteItem], Field(min_length=1)]
    use_cache: Annotated[bool, Field(description="false: run again what was judged before")] = True
    priority: Priority = "normal"
    deadline_ms: DeadlineMs | None = None


class TestResult(Answer):
    verdict: Verdict
    cpu_ms: float = 0.0
    wall_ms: float = 0.0
    peak_memory_mb: float = 0.0
    stdout: str = ""
    stderr: str = ""
    detail: str = ""
    name: str = Field("", description="of the kinds `pytest` and `unittest`")
    vacuous: bool = Field(False, description="it passes for a program that answers nothing, too")
    score: float | None = Field(None, description="in [0, 1], where a checker gives one")

    __test__ = False


class CompileResult(Answer):
    ok: bool
    wall_ms: float
    stdout: str = ""
    stderr: str = ""


class ProgramResult(Answer):
    status: Status
    verdict: Verdict | None = None
    passed: int | None = None
    total: int | None = None
    pass_rate: float | None = None
    trainable: bool
    cached: bool = False
    judge: Judge | None = None
    isolation: Level | None = None
    toolchain: str | None = Field(default=None, description="digest of versions, flags and judge code that judged")
    compile: CompileResult | None = None
    tests: list[TestResult] = []
    flags: list[str] = []
    error: Problem | None = None


class ExecuteResult(Answer):
    id: str | None = None
    best: int | None = Field(None, description="index of the highest pass rate; null if none")
    programs: list[ProgramResult]


class ExecuteAnswer(Answer):
    request_id: str
    status: Completeness
    results: list[ExecuteResult]
    timing: Timing


# --- GET /requests/{id}/replay ----------------------------------------------------------------------------------------


class GivenVerdict(Answer):
    """What was answered about one program, and under which content hash it was done."""

    sha256: str = Field(description="of the program's text in UTF-8, as it was run")
    job: str | None = Field(None, description="content hash of the work; null if none was needed")
    status: Status
    verdict: Verdict | None = None
    passed: int | None = None
    total: int | None = None
    tests: list[Verdict] = []
    flags: list[str] = []
    judge: Judge | None = None
    isolation: Level | None = None
    toolchain: str | None = Field(default=None, description="digest of versions, flags and judge code that judged")
    cached: bool = False


class ReplayItem(Answer):
    """`request` can be posted as an item of `/execute`; `given` has one entry per program of it, in order."""

    request: ExecuteItem
    suite: str = Field(description='digest of the tests, as `{"kind": "ref"}` takes it')
    given: list[GivenVerdict]


class ReplayAnswer(Answer):
    request_id: str
    answered_at: str
    expires_at: str
    toolchain: str = Field(
        description="digest of versions, flags and judge code that judged; where several did, "
        "what the work was admitted for, and `given` has each program's"
    )
    items: list[ReplayItem]


# --- POST /reward and /rank ------------------------------------------------------------------------------------------


# Large enough for any reward, small enough that sums and deviations of rewards stay finite.
Amount = Annotated[float, Field(ge=-1e9, le=1e9)]


class TermBase(Strict):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    weight: Amount = 1.0


class ExecuteTerm(TermBase):
    type: Literal["execute"]
    policy: Literal["pass_rate", "all_or_nothing"] = "pass_rate"


class ScoreTerm(TermBase):
    type: Literal["score"]
    model: Id = "default"
    transform: Literal["none", "sigmoid", "zscore_in_group"] = "none"
    on_overflow: Literal["error", "truncate_left"] = "error"


class FormatTerm(TermBase):
    type: Literal["format"]
    require: Literal["code_fence", "single_code_fence", "non_empty"] = "code_fence"


class ConsensusTerm(TermBase):
    type: Literal["consensus"]


class AgreementTerm(TermBase):
    type: Literal["agreement"]


Term = Annotated[ExecuteTerm | ScoreTerm | FormatTerm | ConsensusTerm | AgreementTerm, Field(discriminator="type")]


class Gate(Strict):
    term: Text
    min: float


class Clip(Strict):
    min: Amount
    max: Amount

    @model_validator(mode="after")
    def _ordered(self) -> Clip:
        if self.min > self.max:
            raise ValueError("clip.min is greater than clip.max")
        return self


MIN_TESTS_WEIGHT = 1e-6  # of the tests under `tests_first`: smaller ones leave no room for the steps between rates


class RewardSpec(Strict):
    """How terms become a reward. `tests_first`: by pass rate, the other terms break ties (docs/api.md has the formula).
    `gated`: the weighted sum where the gate term's value reaches `min`, else 0.

    Without `terms` it is `tests_first` by the tests, and the model breaks ties.
    """

    terms: Annotated[list[Term], Field(min_length=1, max_length=16)] = [
        ExecuteTerm(name="tests", type="execute"),
        ScoreTerm(name="rm", type="score"),
    ]
    combine: Annotated[
        Literal["weighted_sum", "gated", "tests_first"],
        Field(description="with terms of your own `weighted_sum` unless said otherwise; without, `tests_first`"),
    ] = "weighted_sum"
    gate: Gate | None = None
    clip: Clip | None = None
    on_missing: Annotated[
        Literal["null", "drop"],
        Field(
            description="a term without a value: null makes the reward null; drop takes it from the sum and says so; "
            "under `tests_first` a tie-breaker without a value adds 0, and the tests are always needed"
        ),
    ] = "null"

    @model_validator(mode="before")
    @classmethod
    def _tests_first_by_default(cls, given: Any) -> Any:
        if isinstance(given, dict) and not {"terms", "combine"} & given.keys():
            return {**given, "combine": "tests_first"}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> RewardSpec:
        names = [term.name for term in self.terms]
        if len(set(names)) != len(names):
            raise ValueError("two terms have the same name")
        if (self.combine == "gated") != (self.gate is not None):
            raise ValueError("combine 'gated' and a gate go together")
        if self.gate is not None and self.gate.term not in names:
            raise ValueError(f"gate.term {self.gate.term!r} is no term; there are {', '.join(names)}")
        if self.combine != "tests_first" and "terms" not in self.model_fields_set:
            raise ValueError(f"terms are missing: combine {self.combine!r} has none of its own")
        if self.combine == "tests_first":
            executing = [term for term in self.terms if isinstance(term, ExecuteTerm)]
            if len(executing) != 1:
                raise ValueError(f"combine 'tests_first' takes one execute term, and there are {len(executing)}")
            if executing[0].weight < MIN_TESTS_WEIGHT:
                raise ValueError(
                    f"term {executing[0].name!r}: its weight under combine 'tests_first' is at least "
                    f"{MIN_TESTS_WEIGHT:g}, not {executing[0].weight:g}"
                )
        return self

    @property
    def executes(self) -> bool:
        """Whether a term needs tests."""
        return any(isinstance(term, ExecuteTerm | AgreementTerm) for term in self.terms)


BY_TESTS_FIRST = RewardSpec()
BY_MODEL = RewardSpec(terms=[ScoreTerm(name="rm", type="score")])


class RewardItem(Strict):
    """One prompt with its completions; `language` and `tests` where a term executes."""

    id: Id | None = None
    prompt: Prompt
    completions: Annotated[list[Text], Field(min_length=1)]
    language: Annotated[str, Field(min_length=1, max_length=64)] = "python"
    tests: Tests | None = None
    extract: Extract = "none"
    limits: LimitsSpec = LimitsSpec()
    stop: Stop = "never"


class RewardRequest(Strict):
    spec: Annotated[
        RewardSpec | None,
        Field(description="without: by tests first, the model breaks ties; an item without tests by the model"),
    ] = None
    items: Annotated[list[RewardItem], Field(min_length=1)]
    priority: Priority = "normal"
    deadline_ms: DeadlineMs | None = None

    @model_validator(mode="after")
    def _tests_where_executed(self) -> RewardRequest:
        if self.spec is None or not self.spec.executes:
            return self
        executing = [term.name for term in self.spec.terms if isinstance(term, ExecuteTerm | AgreementTerm)]
        for index, item in enumerate(self.items):
            if item.tests is None:
                raise ValueError(f"items.{index}.tests is missing and term {executing[0]!r} needs it")
        return self

    def spec_of(self, index: int) -> RewardSpec:
        """What an item is rewarded by: the request's spec, or by what the item has."""
        if self.spec is not None:
            return self.spec
        return BY_MODEL if self.items[index].tests is None else BY_TESTS_FIRST


class RankRequest(RewardRequest):
    early_stop: bool = Field(False, description="stop executing a group once a completion passes everything")


class Component(Answer):
    status: Status
    value: float | None = None
    contribution: float | None = None
    verdict: Verdict | None = None
    decided: Annotated[bool, Field(description="this term set the group's best apart from its second")] = False
    error: Problem | None = None


class CompletionReward(Answer):
    status: Status
    reward: float | None = None
    trainable: bool
    components: dict[str, Component]


class GroupStatistics(Answer):
    n: int
    n_ok: int
    mean: float | None = None
    std: float | None = Field(None, description="population standard deviation of the group's rewards")
    degenerate: bool = Field(description="no spread to learn from: fewer than two rewards, or all the same")
    best: int | None = None
    margin: Annotated[float | None, Field(description="best reward less the second best; null if fewer")] = None


class RewardResult(Answer):
    id: str | None = None
    completions: list[CompletionReward]
    group: GroupStatistics


class RewardAnswer(Answer):
    request_id: str
    status: Completeness
    models: list[ModelRef] = []
    results: list[RewardResult]
    timing: Timing


class RankResult(RewardResult):
    order: list[int] = Field(description="indices, best first; those without a reward last")


class RankAnswer(Answer):
    request_id: str
    status: Completeness
    models: list[ModelRef] = []
    results: list[RankResult]
    timing: Timing


# --- the rest --------------------------------------------------------------------------------------------------------


class ProblemDocument(Answer):
    """RFC 9457 application/problem+json."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    retry_after_ms: int | None = None
    request_id: str
    errors: list[dict[str, Any]] | None = Field(None, description="per field, for code `invalid`")


class JobAccepted(Answer):
    job_id: str
    status_url: str
    events_url: str
    expires_at: str


class JobEvent(Answer):
    """One finished item of an asynchronous request: `result` is that item's entry of `results`."""

    index: int
    result: dict[str, Any]


class JobStatus(Answer):
    job_id: str
    state: Literal["running", "done", "cancelled", "failed"]
    cursor: str = Field(description="hand it back to get only what is new")
    items: list[JobEvent]
    total: int
    answer: dict[str, Any] | None = Field(None, description="the whole answer, once done")
    error: ProblemDocument | None = None


class ModelInfo(Answer):
    name: str
    revision: str
    architecture: str
    dtype: str
    parameters: int
    max_length: int
    calibrated: bool
    prefix_sharing_disabled_reason: str | None = Field(
        None, description="why prompts are computed for every completion; null: once"
    )
    engine: str = Field("", description="what computes the scores, with its version")
    parity: Annotated[
        dict[str, Any],
        Field(
            description="measured at start: `max_abs_error` to the golden set's `n` scores (at most `tolerance`), and "
            "`max_batch_error`, the largest difference between a score alone and among others"
        ),
    ]
    workers: int


class ModelsAnswer(Answer):
    models: list[ModelInfo]


class ActivateRequest(Strict):
    """Which checkpoint is to take over: one that this deployment knows by its digest, or one at a path."""

    revision: Annotated[
        str | None, Field(pattern=r"^sha256:[0-9a-f]{64}$", description="digest; with `path`, what must be there")
    ] = None
    path: Annotated[
        str | None, Field(min_length=1, max_length=4096, description="folder or hub id, as the scoring workers see it")
    ] = None
    deadline_ms: DeadlineMs | None = None

    @model_validator(mode="after")
    def _names_one(self) -> ActivateRequest:
        if self.revision is None and self.path is None:
            raise ValueError("give `revision`, or `path`, or both")
        return self


class ActivateAnswer(Answer):
    """From here on, requests are scored by `revision`; those that were accepted before get what they were promised."""

    name: str
    revision: str
    previous: str
    workers: int = Field(description="scoring workers that have it")
    took_ms: float = 0.0


class PackageInfo(Answer):
    name: str
    version: str


class LanguageInfo(Answer):
    name: str
    version: str
    aliases: list[str]
    kinds: list[str]
    variants: dict[str, list[str]] = Field(
        {}, description="names that mean another standard or another way to run (`c++20`, `go_test`): their spellings"
    )
    packages: list[PackageInfo] = Field([], description="what programs can import beside the standard library")


class LanguagesAnswer(Answer):
    languages: list[LanguageInfo]


class TestsetAnswer(Answer):
    sha256: str
    tests: int
    expires_at: str

    __test__ = False


class Health(Answer):
    status: Literal["ok"]


class Readiness(Answer):
    ready: bool
    broker: bool
    scorers: int
    executors: int
    reasons: list[str]


class QueueState(Answer):
    depth: int
    cost: float
    max_depth: int
    max_cost: float
    oldest_ms: float
    drained_cost_per_s: float


class InfoAnswer(Answer):
    version: str
    versions: dict[str, str]
    isolation: Level | None
    limits: dict[str, float]
    models: list[ModelInfo]
    languages: list[LanguageInfo]
    queues: dict[str, QueueState]
    workers: dict[str, int]
