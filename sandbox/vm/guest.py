"""The agent of a guest: it opens a sandbox of level `strong` and judges what comes over the wire.

- Who runs where: the main thread judges. One thread reads requests, so that an interruption is seen at once; another
  says once a second that a judgement is going on.
- When it ends: when the wire closes, or the sandbox does not open. Then the guest is powered off (`init` of the image).
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from plaudit.grading import Level
from plaudit.languages import UnsupportedLanguage
from sandbox.errors import Interrupted, InvalidOptions, InvalidSuite, ModuleUnavailable, SandboxError
from sandbox.harness import code_digest
from sandbox.judge import judge
from sandbox.open import open_sandbox
from sandbox.packages import packages
from sandbox.sandbox import Sandbox
from sandbox.vm.messages import (
    HEADER_BYTES,
    MAX_REQUEST_BYTES,
    GuestLanguage,
    Judged,
    Judgement,
    NotReady,
    Ready,
    Refused,
    Reply,
    Working,
    decode_request,
    encode_reply,
)
from sandbox.vm_image import FORMAT, SLOWNESS

PORT = "plaudit"  # the name of the serial port that is the wire
WORKING_S = 1.0
REPORTED = (InvalidOptions, ModuleUnavailable, InvalidSuite, Interrupted, SandboxError, UnsupportedLanguage)


def port_path(ports: Path = Path("/sys/class/virtio-ports")) -> Path:
    """The device of the port named `PORT`. Raises FileNotFoundError where there is none."""
    for port in sorted(ports.glob("*")):
        if (port / "name").read_text().strip() == PORT:
            return Path("/dev") / port.name
    raise FileNotFoundError(f"no virtio port is named {PORT}")


class AgentWire:
    """The guest's end of the wire."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._lock = threading.Lock()

    def send(self, reply: Reply) -> None:
        frame = memoryview(encode_reply(reply))
        with self._lock:
            while frame:
                frame = frame[os.write(self.fd, frame) :]

    def receive(self) -> bytes | None:
        """The body of the next frame; None at the end of the wire."""
        header = self._exactly(HEADER_BYTES)
        if header is None:
            return None
        size = int.from_bytes(header, "big")
        if size > MAX_REQUEST_BYTES:
            raise SandboxError(f"a request of {size} bytes; at most {MAX_REQUEST_BYTES} are allowed")
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes | None:
        parts, left = [], size
        while left:
            part = os.read(self.fd, min(left, 1 << 20))
            if not part:
                return None
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


class Agent:
    """Judges one request after the other in an open sandbox."""

    def __init__(self, sandbox: Sandbox, wire: AgentWire) -> None:
        self.sandbox = sandbox
        self.wire = wire
        self.requests: queue.SimpleQueue[Judgement | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._number: int | None = None  # of the judgement that is going on
        self._interrupted: set[int] = set()  # of those that wait

    def ready(self) -> Ready:
        languages = tuple(
            GuestLanguage(
                language.name,
                language.version,
                language.aliases,
                language.kinds,
                language.variants,
                packages(language.name),
            )
            for language in self.sandbox.languages()
        )
        return Ready(FORMAT, code_digest().hex(), self.sandbox.level, self.sandbox.toolchain_digest, languages)

    def read_requests(self) -> None:
        """Body of the reading thread."""
        try:
            while (body := self.wire.receive()) is not None:
                request = decode_request(body)
                if isinstance(request, Judgement):
                    self.requests.put(request)
                    continue
                with self._lock:
                    if self._number == request.number:
                        self.sandbox.interrupt.set()
                    else:
                        self._interrupted.add(request.number)
        finally:
            self.requests.put(None)

    def say_working(self) -> None:
        """Body of the thread that tells the host of a long judgement."""
        tick = threading.Event()
        while not tick.wait(WORKING_S):
            with self._lock:
                number = self._number
            if number is not None:
                self.wire.send(Working(number))

    def run(self) -> None:
        """Judge until the wire closes."""
        for body in (self.read_requests, self.say_working):
            threading.Thread(target=body, daemon=True).start()
        while (request := self.requests.get()) is not None:
            with self._lock:
                self._number = request.number
                self.sandbox.interrupt.clear()
                if request.number in self._interrupted:
                    self.sandbox.interrupt.set()
                self._interrupted.clear()
            reply = self.answer(request)
            with self._lock:
                self._number = None
            self.wire.send(reply)

    def answer(self, request: Judgement) -> Reply:
        """The report, or the exception that `judge` raised."""
        return answer(
            request.number,
            lambda: Judged(
                request.number,
                judge(request.program, request.suite, request.limits, request.stop, self.sandbox, request.options),
            ),
        )


def answer(number: int, work: Callable[[], Judged]) -> Reply:
    """What `work` returns, or its exception by name."""
    try:
        return work()
    except REPORTED as error:
        name = next(kind.__name__ for kind in REPORTED if isinstance(error, kind))
        modules = tuple(error.modules) if isinstance(error, ModuleUnavailable) else ()
        return Refused(number, name, str(error), modules)


def slowness(command_line: Path = Path("/proc/cmdline")) -> float:
    """How much slower this processor is than a real one: what the host says if it emulates one."""
    words = dict(word.split("=", 1) for word in command_line.read_text().split() if "=" in word)
    return float(words.get(SLOWNESS, 1))


def serve(fd: int, accept: Level = "strong") -> int:
    """Serve over a descriptor until the wire closes; returns the exit code."""
    wire = AgentWire(fd)
    try:
        with open_sandbox(accept, slowness=slowness()) as sandbox:
            agent = Agent(sandbox, wire)
            wire.send(agent.ready())
            agent.run()
    except SandboxError as error:
        wire.send(NotReady(str(error)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(serve(os.open(port_path(), os.O_RDWR | os.O_CLOEXEC)))
