"""The prompt's own evidence as jobs: each program of a group is watched on the prompt's examples and on made inputs.

- A prompt is read and its inputs are made in a thread: prompts are untrusted and may be long.
- One job per different program and round makes the round's calls (`service.evidence.rounds`), the examples' first.
  Identical programs share it. Rounds after the first are admitted whatever the queue's bounds: the first one's jobs
  have been admitted with the whole budget.
- What a group has no evidence of is a `ResultError` with the reason, never a value.
- The verdicts and outcomes come from outside the jail; a program chooses its answers only.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from plaudit.extract import closed, code_of, last_fence
from plaudit.grading import Verdict
from plaudit.languages import UnsupportedLanguage, resolve
from plaudit.schemas import BehaviorTerm, Evidence, PromptExample, ResultError, RewardItem, RewardSpec
from sandbox import types as sandbox
from service.api.dispatch.request_context import RequestContext
from service.api.dispatch.submission import Submission
from service.api.dispatch.tasks import in_thread
from service.api.handlers.execute import execute_job
from service.evidence.examples import Reading, explain, read_examples
from service.evidence.inputs import mutated_inputs
from service.evidence.rounds import ObservationRounds, Round, default_budget_s, is_misread
from service.jobs import Executed, ExecuteTask, Failed, Job, encode_suite

# A function's annotations are the prompt's, which imports them. A method is LeetCode's form, where both are there.
FUNCTION_PRELUDE = "from typing import *\n"
METHOD_PRELUDE = FUNCTION_PRELUDE + "from collections import *\n"


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of a group.

    Args:
        reports: one per completion: the sandbox's, None without code, or why there is none.
        kept: which of the examples count.
        num_examples: calls of a report that are examples; the rest are inputs.
        evidence: as the answer shows it.
        no_examples: why no example counts.
        no_inputs: why there is no input.
    """

    reports: Sequence[sandbox.Report | Failed | None]
    kept: Sequence[int] = ()
    num_examples: int = 0
    evidence: Evidence | None = None
    no_examples: ResultError | None = None
    no_inputs: ResultError | None = None


class EvidenceGroup:
    """One item: what its prompt says, and the first jobs of its programs; `problem` says why there are none."""

    def __init__(self, item: RewardItem, spec: RewardSpec, toolchain: str, context: RequestContext, shard: int) -> None:
        self.item = item
        self.shard = shard
        self.prompt = asked_text(item)
        self.sources = [program_of(completion, item) for completion in item.completions]
        self.reading = Reading()
        self.inputs: list[str] = []
        self.jobs: dict[int, Job] = {}  # of the current round, by program
        self.problem: ResultError | None = None
        try:
            language = resolve(item.language)
        except UnsupportedLanguage as error:
            self.problem = ResultError(code="language_unknown", detail=str(error))
            return
        given = [source for source in self.sources if source is not None]
        self.reading = read_examples(self.prompt, completions=given if language == "python" else ())
        if self.reading.entry_point:  # a block that shows how to use the function may follow it
            defines = definition_of(self.reading.entry_point)
            self.sources = [program_of(completion, item, defines) for completion in item.completions]
            given = [source for source in self.sources if source is not None]
        if self.reading.kind is None:
            self.problem = ResultError(code="no_examples", detail="the prompt names no function and shows no sample")
        elif self.reading.kind == "function" and language != "python":
            detail = f"functions are called in Python only; {language} programs need samples of stdin and stdout"
            self.problem = ResultError(code="no_examples", detail=detail)
        else:
            self._plan(language, given, spec, toolchain, context)

    def _plan(
        self, language: str, given: Sequence[str], spec: RewardSpec, toolchain: str, context: RequestContext
    ) -> None:
        """Make the calls, and the jobs of the first round."""
        reading = self.reading
        term = next((term for term in spec.terms if isinstance(term, BehaviorTerm)), None)
        if term is not None:
            self.inputs = mutated_inputs(reading, given, prompt=self.prompt, count=term.inputs)
        calls = [
            sandbox.ObservedCall(
                example.arguments or "", example.expected, example.tolerance, example.stdin, example.stdout
            )
            for example in reading.examples
        ]
        is_stdio = reading.kind == "stdio"
        self.calls = calls + [observed_input(text, is_stdio=is_stdio) for text in self.inputs]
        if not self.calls:
            return
        self.toolchain, self.context, self.language = toolchain, context, language
        self.programs = list(dict.fromkeys(given))
        copies = Counter(given)
        self.rounds = ObservationRounds(
            [copies[source] for source in self.programs],
            len(calls),
            len(self.inputs),
            is_stdio=is_stdio,
            budget_cpu_s=(term and term.budget_cpu_s) or default_budget_s(len(self.programs)),
            complete=spec.combine != "auto",
        )
        self.round = self.rounds.first()
        self.jobs = self._jobs(self.round)

    def _jobs(self, current: Round) -> dict[int, Job]:
        """A job per program of a round."""
        entry_point = self.reading.entry_point
        prelude = ""
        if entry_point:
            prelude = METHOD_PRELUDE if "." in entry_point else FUNCTION_PRELUDE
        suite = sandbox.ObserveSuite(
            entry_point,
            tuple(self.calls[at] for at in current.calls),
            prelude,
            call_cpu_s=current.call_cpu_s,
            budget_cpu_s=current.share_s,
        )
        frame = encode_suite(suite)
        sha256 = hashlib.sha256(frame).hexdigest()
        limits = sandbox.Limits(**self.item.limits.model_dump())
        jobs = {}
        for program in current.programs:
            source = whole_program(self.prompt, self.programs[program], entry_point)
            task = ExecuteTask(self.language, source, sha256, limits, toolchain=self.toolchain)
            jobs[program] = execute_job(task, frame, current.share_s, self.context, self.shard)
        return jobs

    async def result(self, submission: Submission) -> Observed:
        """Wait for the programs, round after round."""
        if self.problem is not None:
            return Observed([None] * len(self.sources), no_examples=self.problem, no_inputs=self.problem)
        if not self.jobs:
            return self._observed([None] * len(self.sources))
        reports: dict[int, sandbox.Report | Failed] = {}
        current: Round | None = self.round
        while current is not None:
            replies = await submission.replies({job.id for job in self.jobs.values()})
            for program, job in self.jobs.items():
                body = replies[job.id].body
                assert isinstance(body, Executed | Failed)
                if isinstance(body, Failed):
                    self.rounds.fail(program)
                    reports[program] = body
                else:
                    self.rounds.add(current, program, body.report)
                    reports[program] = body.report
            current = self.rounds.next()
            if current is not None:
                self.jobs = await in_thread(self._jobs, current)
                await submission.submit(self.jobs.values(), unbounded=True)
        whole = {
            program: report if isinstance(report, Failed) else replace(report, tests=tuple(self.rounds.known(program)))
            for program, report in reports.items()
        }
        number = {source: program for program, source in enumerate(self.programs)}
        return self._observed([None if source is None else whole[number[source]] for source in self.sources])

    def _observed(self, reports: Sequence[sandbox.Report | Failed | None]) -> Observed:
        columns = [
            [report.tests[at] for report in reports if isinstance(report, sandbox.Report)]
            for at in range(len(self.reading.examples))
        ]
        examples = [
            PromptExample(
                **explain(example, self.prompt, self.reading.entry_point),
                passed=sum(test.verdict is Verdict.PASSED for test in column),
                dropped=is_misread(column),
            )
            for example, column in zip(self.reading.examples, columns, strict=True)
        ]
        kept = [at for at, example in enumerate(examples) if not example.dropped]
        evidence = Evidence(
            entry_point=self.reading.entry_point,
            examples=examples,
            inputs=len(self.inputs),
            cpu_s=round(self.rounds.cpu_s, 6) if self.jobs else 0.0,
            settled=not self.jobs or self.rounds.settled,
            cut_short=self.rounds.num_cut if self.jobs else 0,
        )
        detail = "all examples were dropped" if examples else "no example could be read from the prompt"
        return Observed(
            reports,
            kept,
            len(examples),
            evidence,
            None if kept else ResultError(code="no_examples", detail=detail),
            None if self.inputs else ResultError(code="no_inputs", detail="no inputs can be made from the prompt"),
        )


def observed_input(text: str, *, is_stdio: bool) -> sandbox.ObservedCall:
    """A call on an input of which nobody knows the answer."""
    return sandbox.ObservedCall(stdin=text) if is_stdio else sandbox.ObservedCall(text)


def program_of(completion: str, item: RewardItem, defines: re.Pattern[str] | None = None) -> str | None:
    """The program of a completion. Without `extract` a chat answer's code is taken, and other text is one program.

    `defines`: what the code is looked for by, of several blocks of an answer.
    """
    if item.extract == "continuation":
        return continued(item, completion)
    if item.extract == "last_fence":
        return last_fence(completion)
    code = code_of(completion, item.language, defines)
    return completion if code is None else code.text


def continued(item: RewardItem, completion: str) -> str:
    """The prompt with the completion behind it, without the closing tokens at its end."""
    return prompt_text(item) + closed(completion)


def prompt_text(item: RewardItem, *, without: Collection[str] = ()) -> str:
    """The prompt as one text; of a conversation without the turns of these roles."""
    if isinstance(item.prompt, str):
        return item.prompt
    return "\n\n".join(message.text for message in item.prompt if message.role not in without)


def asked_text(item: RewardItem) -> str:
    """What is asked for, as one text; positions of examples are positions in it.

    Of a conversation without what the assistant has answered and its tools have told: that may be what was wrong.
    """
    return prompt_text(item, without=("assistant", "tool"))


def whole_program(prompt: str, source: str, entry_point: str | None) -> str:
    """The completion, after the prompt where only that defines the function: a body alone is no program."""
    if entry_point is None:
        return source
    definition = definition_of(entry_point)
    if definition.search(source) or not definition.search(prompt):
        return source
    return prompt + source


def definition_of(entry_point: str) -> re.Pattern[str]:
    """Where a program defines a function, or a method's class, at its top level."""
    owner, _, name = entry_point.rpartition(".")
    top = re.escape(owner or name)
    return re.compile(rf"^(?:(?:async[ \t]+)?def|class)[ \t]+{top}\b|^{top}[ \t]*[:=]", re.MULTILINE)
