"""What host and guest say to each other, and how it is framed.

- A frame is its length in four bytes, then its body. The wire is a stream; nothing else is on it.
- Requests are JSON, because a test may hold an integer of any size. They come from the host, which the guest trusts.
- Replies are msgpack, decoded into one of a few types. Their length is bounded before anything is read: a guest whose
  kernel was broken may send whatever it likes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from sandbox.types import Limits, Options, Program, Report, Stop, Suite

HEADER_BYTES = 4
MAX_REQUEST_BYTES = 512 << 20  # more than the API lets through
MAX_REPLY_BYTES = 96 << 20  # a run's whole output with the files that it was asked for
SUITES: dict[str, type[Suite]] = {suite.__name__: suite for suite in get_args(Suite)}


@dataclass(frozen=True, slots=True)
class Judgement:
    """One request: a program, its suite, and what `judge` takes beside them."""

    number: int
    program: Program
    suite: Suite
    limits: Limits
    stop: Stop
    options: Options


@dataclass(frozen=True, slots=True)
class Interruption:
    """The judgement of this number is not needed any more."""

    number: int


class GuestLanguage(msgspec.Struct, frozen=True):
    """A language of a guest, as `sandbox.languages.Language` has it, and the packages that its programs can import."""

    name: str
    version: str
    aliases: tuple[str, ...]
    kinds: tuple[str, ...]
    variants: dict[str, tuple[str, ...]]
    packages: tuple[tuple[str, str], ...]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The guest's sandbox is open, and has proven its isolation. `format`: of image and messages."""

    format: int
    code: str
    level: str
    toolchain: str
    languages: tuple[GuestLanguage, ...]


class NotReady(msgspec.Struct, frozen=True, tag="not_ready"):
    """The guest's sandbox does not open."""

    detail: str


class Working(msgspec.Struct, frozen=True, tag="working"):
    """A judgement is going on. Sent once a second."""

    number: int


class Judged(msgspec.Struct, frozen=True, tag="judged"):
    number: int
    report: Report


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """An exception of `judge`, by the name of its class. `modules`: those of a ModuleUnavailable."""

    number: int
    error: str
    detail: str
    modules: tuple[str, ...] = ()


Reply = Ready | NotReady | Working | Judged | Refused
_reply_decoder = msgspec.msgpack.Decoder(Reply)
_reply_encoder = msgspec.msgpack.Encoder()


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def encode_request(request: Judgement | Interruption) -> bytes:
    """The frame of a request."""
    if isinstance(request, Interruption):
        return framed(json.dumps({"interrupt": request.number}).encode())
    body = {
        "number": request.number,
        "program": msgspec.to_builtins(request.program),
        "kind": type(request.suite).__name__,
        "suite": msgspec.to_builtins(request.suite),
        "limits": msgspec.to_builtins(request.limits),
        "stop": msgspec.to_builtins(request.stop),
        "options": msgspec.to_builtins(request.options),
    }
    return framed(json.dumps(body).encode())


def decode_request(body: bytes) -> Judgement | Interruption:
    """A request from the body of its frame."""
    parsed: dict[str, Any] = json.loads(body)
    if "interrupt" in parsed:
        return Interruption(parsed["interrupt"])
    suite: Any = msgspec.convert(parsed["suite"], SUITES[parsed["kind"]])
    return Judgement(
        parsed["number"],
        msgspec.convert(parsed["program"], Program),
        suite,
        msgspec.convert(parsed["limits"], Limits),
        msgspec.convert(parsed["stop"], Stop),
        msgspec.convert(parsed["options"], Options),
    )


def encode_reply(reply: Reply) -> bytes:
    """The frame of a reply."""
    return framed(_reply_encoder.encode(reply))


def decode_reply(body: bytes) -> Reply:
    """A reply from the body of its frame. Raises msgspec.DecodeError for anything else."""
    reply: Reply = _reply_decoder.decode(body)
    return reply
