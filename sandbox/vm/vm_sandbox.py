"""The host's side of level `vm`: it forwards judgements to a guest and reads its reports.

It has what an executor uses of a `Sandbox`: level, toolchain, languages, `interrupt`, `judge`. One judgement at a time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from plaudit.grading import Level, Verdict
from plaudit.languages import UnsupportedLanguage
from sandbox.errors import (
    Interrupted,
    InvalidOptions,
    InvalidSuite,
    IsolationUnavailable,
    ModuleUnavailable,
    SandboxError,
)
from sandbox.harness import code_digest
from sandbox.languages import Language
from sandbox.limits import MANAGED_MB
from sandbox.owners import claim_uids, state_directory, sweep
from sandbox.procfs import start_time
from sandbox.run_records import RunRecord
from sandbox.types import NO_OPTIONS, Limits, Options, Program, Report, Stop, Suite
from sandbox.vm.machine import Guest, GuestLost, start_guest
from sandbox.vm.messages import (
    Interruption,
    Judged,
    Judgement,
    NotReady,
    Ready,
    Refused,
    Reply,
    Working,
    decode_reply,
    encode_request,
)
from sandbox.vm_image import FORMAT, VmConfig, vm_lacks

TICK_S = 0.02
SILENT_S = 30.0  # a guest that judges says so once a second
EMULATED_SILENT_S = 300.0
INTERRUPT_S = 10.0  # until an interrupted judgement has ended, or its guest is ended
StartGuest = Callable[[VmConfig, str, int | None], Guest]
REFUSALS = {error.__name__: error for error in (InvalidOptions, InvalidSuite, Interrupted, UnsupportedLanguage)}


class VmSandbox:
    """Judges in guests, one after the other. Use as a context manager. It belongs to one process.

    Attributes:
        level: always `vm`.
        interrupt: set from any thread, it ends what runs with `Interrupted`.
        on_run: as a `Sandbox` has it; a guest does not tell of its runs, so it is not called.
        toolchain_digest: the guest's, what a cached result depends on besides its inputs.
    """

    level: Level = "vm"

    def __init__(self, config: VmConfig, state: Path, start: StartGuest = start_guest) -> None:
        self.config = config
        self._start_guest = start
        self.interrupt = threading.Event()
        self.on_run: Callable[[RunRecord], None] | None = None
        self.name = f"plaudit-vm-{os.getpid()}-{start_time(os.getpid())}"
        self.num_started = 0
        self.num_judged = 0  # by the guest that runs
        self.number = 0
        self.guest: Guest | None = None
        self.closed = False
        self.uid: int | None = None
        self.lock = -1
        if os.geteuid() == 0:
            self.uid, self.lock = claim_uids(state)
        try:
            self.ready = self._start()
        except BaseException:
            self.close()
            raise
        self.toolchain_digest = self.ready.toolchain

    def languages(self) -> list[Language]:
        """The languages of the image."""
        return [
            Language(language.name, language.version, language.aliases, language.kinds, language.variants)
            for language in self.ready.languages
        ]

    def packages(self, language: str) -> tuple[tuple[str, str], ...]:
        """Name and version of each package that programs of the language can import."""
        return next((entry.packages for entry in self.ready.languages if entry.name == language), ())

    def judge(
        self, program: Program, suite: Suite, limits: Limits, stop: Stop, options: Options = NO_OPTIONS
    ) -> Report:
        """Have the guest judge; as `sandbox.judge.judge`.

        Raises:
            GuestLost: the guest is gone and nothing is known of the program; safe to retry.
            InvalidSuite: also where `limits.memory_mb` is more than a guest has.
            Others: as `sandbox.judge.judge`.
        """
        if self.closed:
            raise SandboxError("the sandbox is closed")
        most = self.config.program_mb - MANAGED_MB
        if limits.memory_mb > most:
            raise InvalidSuite(
                f"limits.memory_mb is {limits.memory_mb}; at most {most} fit into a guest of this deployment "
                f"(vm_memory_mb {self.config.memory_mb})"
            )
        try:
            guest = self._fresh_guest()
            self.number += 1
            guest.send(encode_request(Judgement(self.number, program, suite, limits, stop, options)))
            reply = self._await_answer(guest)
        except BaseException:
            self._drop()
            raise
        self.num_judged += 1
        if isinstance(reply, Judged):
            return replace(reply.report, isolation="vm")
        raise refusal(reply)

    def _await_answer(self, guest: Guest) -> Judged | Refused:
        """The answer to the judgement of `number`. Raises GuestLost, and Interrupted where the guest does not stop."""
        now = time.monotonic()
        silent_s = EMULATED_SILENT_S if self.config.emulation else SILENT_S
        heard_at, ends_at, interrupted_at = now, now + self.config.answer_s, None
        while True:
            body = guest.exchange(TICK_S)
            now = time.monotonic()
            if body is not None:
                heard_at = now
                reply = read_reply(body)
                if isinstance(reply, Judged | Refused) and reply.number == self.number:
                    check_report(reply)
                    return reply
                if not isinstance(reply, Working):
                    raise GuestLost(f"a guest sent {type(reply).__name__} of another judgement")
            if now > ends_at:
                raise GuestLost(f"a guest did not answer within {self.config.answer_s:g} s")
            if now > heard_at + silent_s:
                raise GuestLost(f"a guest was silent for {silent_s:g} s")
            if interrupted_at is None and self.interrupt.is_set():
                interrupted_at = now
                guest.send(encode_request(Interruption(self.number)))
            if interrupted_at is not None and now > interrupted_at + INTERRUPT_S:
                raise Interrupted("the run was interrupted by its caller, and its guest was ended")

    def _fresh_guest(self) -> Guest:
        """The guest that runs, or a fresh one if there is none, it has ended, or it has judged enough."""
        if self.guest is not None and self.num_judged >= self.config.max_jobs:
            self._drop()
        if self.guest is None:
            ready = self._start()
            if ready.toolchain != self.toolchain_digest:
                self._drop()
                raise GuestLost("a fresh guest has another toolchain: the image was replaced; start the executor again")
        assert self.guest is not None
        return self.guest

    def _start(self) -> Ready:
        """Start a guest and wait until its sandbox is open. Raises IsolationUnavailable or GuestLost."""
        self.num_started += 1
        self.num_judged = 0
        self.guest = self._start_guest(self.config, f"{self.name}-{self.num_started}", self.uid)
        deadline = time.monotonic() + self.config.boot_s
        while (body := self.guest.exchange(TICK_S)) is None:
            if time.monotonic() > deadline:
                console = self.guest.console.decode("utf-8", "replace").strip()[-300:]
                self._drop()
                raise IsolationUnavailable(
                    f"level 'vm': a guest was not ready within {self.config.boot_s:g} s; its console: {console!r}"
                )
        reply = read_reply(body)
        if isinstance(reply, NotReady):
            raise IsolationUnavailable(f"level 'vm': the sandbox in the guest does not open: {reply.detail}")
        if not isinstance(reply, Ready) or reply.level != "strong":
            raise IsolationUnavailable("level 'vm': the guest's sandbox is not of level strong")
        if (reply.format, reply.code) != (FORMAT, code_digest().hex()):
            raise IsolationUnavailable("level 'vm': the guest has another version of plaudit; run plaudit vm build")
        return reply

    def _drop(self) -> None:
        guest, self.guest = self.guest, None
        if guest is not None:
            guest.close()

    def close(self) -> None:
        """End the guest and release the uids."""
        if self.closed:
            return
        self.closed = True
        self._drop()
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def __enter__(self) -> VmSandbox:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_reply(body: bytes) -> Reply:
    """A guest's message. Raises GuestLost for anything that is none."""
    try:
        return decode_reply(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise GuestLost(f"a guest sent what is no message: {error}") from error


def check_report(reply: Judged | Refused) -> None:
    """Raises GuestLost for a report that contradicts itself, which no judge of ours writes."""
    if isinstance(reply, Refused):
        return
    report = reply.report
    consistent = 0 <= report.passed <= report.total and (
        report.verdict is not Verdict.PASSED or 0 < report.passed == report.total
    )
    if not consistent:
        raise GuestLost("a guest sent a report that contradicts itself")


def refusal(reply: Refused) -> Exception:
    """The exception that `judge` raised in the guest."""
    if reply.error == ModuleUnavailable.__name__:
        return ModuleUnavailable(list(reply.modules))
    return REFUSALS.get(reply.error, SandboxError)(reply.detail)


def open_vm_sandbox(config: VmConfig) -> VmSandbox:
    """Start a guest, whose sandbox proves its isolation before it takes work. The caller closes it.

    Raises:
        IsolationUnavailable: this host cannot run guests, or the guest's sandbox does not open.
        SandboxError: QEMU does not start.
    """
    lacks = vm_lacks(config)
    if lacks:
        raise IsolationUnavailable(f"isolation level 'vm' is not available here, missing: {'; '.join(lacks)}")
    state = state_directory()
    sweep(state)
    return VmSandbox(config, state)
