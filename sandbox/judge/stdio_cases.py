"""Checks the cases of a `stdio` suite before anything runs; an invalid field is rejected by its name."""

from __future__ import annotations

from dataclasses import replace

from plaudit.grading import Compare
from sandbox.errors import InvalidSuite
from sandbox.jail_job import JailJob
from sandbox.judge.compare import least_output
from sandbox.judge.streams import encoded
from sandbox.judge.working_files import MAIN, check_run, path_of
from sandbox.types import Limits, RunSuite, StdioCase, StdioSuite

MAX_ANSWERS = 16


def answers_of(case: StdioCase) -> tuple[str, ...]:
    """The right answers of a case; a program has to match one."""
    return (case.stdout,) if isinstance(case.stdout, str) else case.stdout


def check_cases(suite: StdioSuite, limits: Limits) -> None:
    """Raises InvalidSuite, naming the case, the field and the limit."""
    if suite.checker is not None and suite.interactor is not None:
        raise InvalidSuite("checker and interactor: a suite takes one of them, not both")
    decided = suite.checker is not None or suite.interactor is not None
    for at, case in enumerate(suite.cases):
        answers = answers_of(case)
        if not 1 <= len(answers) <= MAX_ANSWERS:
            raise InvalidSuite(f"cases.{at}.stdout: {len(answers)} answers; from 1 to {MAX_ANSWERS} are allowed")
        if decided and len(answers) > 1:
            raise InvalidSuite(f"cases.{at}.stdout: a checker or an interactor reads one answer, not {len(answers)}")
        if not decided:
            for answer in answers:
                check_room(f"cases.{at}.stdout", answer, suite.compare, limits.output_kb)
        if case.files:
            check_files(f"cases.{at}.files", case)


def check_room(field: str, answer: str, mode: Compare, output_kb: int) -> None:
    """Raises InvalidSuite for an answer that no program can print, because it is longer than a program may print."""
    most = 1024 * output_kb
    if len(answer) * 4 <= most:
        return
    least = least_output(encoded(answer, field), mode)
    if least > most:
        raise InvalidSuite(
            f"{field}: a program must print {least} bytes to match it, and limits.output_kb lets it print "
            f"{most} ({output_kb} KB); raise limits.output_kb or shorten the case"
        )


def check_files(field: str, case: StdioCase) -> None:
    try:
        check_run(RunSuite(files=case.files))
    except InvalidSuite as error:
        raise InvalidSuite(f"{field}: {error}") from None


def with_files(job: JailJob, case: StdioCase, at: int) -> JailJob:
    """The job with the case's files in its working folder. Raises InvalidSuite for one that is the program itself."""
    if not case.files:
        return job
    files = [(path_of(name), content) for name, content in case.files]
    own = {path for path, _ in job.files} | ({MAIN} if job.main else set())
    for path, _ in files:
        if path in own:
            name = path.rpartition("/")[2]
            raise InvalidSuite(f"cases.{at}.files: {name!r} is the name of the program's own file")
    return replace(job, files=(*job.files, *files))
