"""Messages of a program that says whatever it likes, through everything that reads them, under limits.

Half are made by a grammar of the wire (tags with right and wrong contents, handles, errors, walls, requests; small,
deep, wide and long), half of those are mutated as bytes. Each message goes the host's way (`codec.loads`, then the
verdict on an answer to a function, to a literal assert, to a greeting) and the test process' way (`Endpoint`, a few
things that a test may do with what arrives, the message to the host, and that message read there). Only declared
exceptions may be raised; no text may be longer than its bound; no message may cost more CPU time or memory than the
budget.

Prints a table; exit code 1 where anything breaks a bound.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from plaudit.grading import Verdict
from sandbox.inside.framing import Lost, Unsplittable
from sandbox.inside.lending_rules import perform
from sandbox.inside.rpc import Endpoint
from sandbox.inside.test_verdicts import judge
from sandbox.judge import bounds, codec, isolated_tests
from sandbox.judge.function_calls import EntryPointCall, Undecided, greeting_outcome, judge_value, reply_outcome
from sandbox.judge.literal_asserts import judge_literal
from sandbox.judge.report_limits import bounded
from sandbox.run import RunOutcome
from sandbox.types import Report, TestReport
from service.jobs import Executed, encode

MESSAGES = 200_000
MEMORY_MB = 2048
BUDGET_S = 1.0  # CPU time of one message on either way; about 0.3 s on a machine with nothing else to do
LARGE_EVERY = 400
EXPECTED = (1, [1, 2], {"a": [1.5, None]}, "x", None, True, [[1]] * 3)
TAGS = (*sorted(codec.TAGS), "h", "?", "")
TEXTS = (
    "",
    "a",
    "0x1f",
    "-0x1",
    "nan",
    "inf",
    "int",
    "é",
    "\ud800",
    "\x00",
    "\\",
    '"',
    ",[{",
    "1/3",
    "2024-01-01",
    "<f8",
    "<U9",
)


class Grammar:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def scalar(self) -> Any:
        r = self.random
        return r.choice(
            (
                None,
                True,
                False,
                0,
                1,
                -1,
                r.randrange(-(10**6), 10**6),
                2**64,
                10**300,
                0.5,
                -0.0,
                1e308,
                r.choice(TEXTS),
                r.choice(TEXTS) * r.randrange(1, 40),
            )
        )

    def tree(self, depth: int = 0) -> Any:
        r = self.random
        if depth > 6 or r.random() < 0.35:
            return self.scalar()
        kind = r.random()
        if kind < 0.25:
            return [self.tree(depth + 1) for _ in range(r.randrange(5))]
        if kind < 0.35:
            return {r.choice(TEXTS): self.tree(depth + 1) for _ in range(r.randrange(4))}
        return self.tagged(depth + 1)

    def tagged(self, depth: int) -> dict[str, Any]:
        r = self.random
        tag = r.choice(TAGS)
        tree: dict[str, Any] = {"t": tag if r.random() < 0.95 else self.scalar(), "v": self.tree(depth)}
        if tag in ("dict", "Counter", "OrderedDict", "defaultdict") and r.random() < 0.8:
            tree["v"] = [[self.tree(depth), self.tree(depth)] for _ in range(r.randrange(4))]
        elif tag in ("tuple", "set", "frozenset", "deque", "namedtuple", "ndarray") and r.random() < 0.8:
            tree["v"] = [self.tree(depth) for _ in range(r.randrange(5))]
        for name, value in (
            ("d", r.choice(("<i8", "<f8", "<U3", "O", "<U99999"))),
            ("f", ["a", "b"]),
            ("n", "N"),
            ("max", r.choice((None, 3, "x"))),
            ("mine", r.random() < 0.8),
            ("id", r.randrange(4)),
            ("type", r.choice(TEXTS)),
            ("base", r.choice(("int", "list", None, "str", [1]))),
            ("native", "function"),
            ("module", r.choice(("math", "os", 3))),
            ("exception", [self.scalar(), self.scalar()]),
        ):
            if tag == "h" or name in "dfn":
                if r.random() < 0.4:
                    tree[name] = value
            elif name == "max" and tag == "deque":
                tree[name] = value
        return tree

    def error(self) -> Any:
        r = self.random
        if r.random() < 0.1:
            return self.tree()
        return {
            "name": r.choice(("ValueError", "Own", "", self.tree())),
            "message": self.tree(),
            "base": r.choice(("ValueError", "SystemExit", "MemoryError", "UnicodeError", "eval", self.tree())),
            "args": r.choice((None, self.tree(), {"t": "tuple", "v": [self.tree()]})),
        }

    def message(self) -> Any:
        r = self.random
        body = r.choice(("ok", "ok", "ok", "error", "wall", "hello", "op", "changed", "none", "tree"))
        message: dict[str, Any] = {"id": "ID"}
        if body == "tree":
            return self.tree()
        if body == "error":
            message["error"] = self.error()
        elif body == "hello":
            message |= {"hello": r.choice((True, 1)), r.choice(("error", "exit", "parsed")): self.tree()}
        elif body == "op":
            ops = ("call", "iter", "next", "repr", "truth", "attr", "set_attr", "len", "item", "await", "?", None)
            message |= {
                "op": r.choice(ops),
                "h": r.choice((0, 1, 7, "x")),
                "args": self.tree(),
                "names": [],
                "name": self.scalar(),
                "value": self.tree(),
                "key": self.tree(),
            }
        elif body == "changed":
            message |= {"ok": self.tree(), "changed": r.choice((self.tree(), [[0, self.tree()]], [[self.scalar()]]))}
        elif body != "none":
            message[body] = self.tree()
        return message

    def large(self) -> bytes:
        """A message of up to the most bytes that may cross: one part many times, one within the other, or one long."""
        r = self.random
        size = r.choice((10**5, 10**6, 4 * 10**6, 15 * 10**6))
        part = json.dumps(self.tree(3)).encode()[:2000]
        how = r.randrange(6)
        if how == 0:
            value = b"[" + b",".join([part] * max(1, size // (len(part) + 1))) + b"]"
        elif how == 1:
            before, after = r.choice(
                (
                    (b"[", b"]"),
                    (b'{"t":"tuple","v":[', b"]}"),
                    (b'{"t":"dict","v":[[', b",1]]}"),
                    (b'{"t":"frozenset","v":[', b"]}"),
                    (b'{"":', b"}"),
                )
            )
            times = r.choice((20, 190, 1000))
            value = before * times + b'"' + b"x" * (size - 50_000) + b'"' + after * times
        elif how == 2:
            text = r.choice((b"x", b"\\u002c", b",[{", b"\\\\", b'\\"', b"\\ud800", b"\\u0000"))
            value = b'"' + text * (size // len(text)) + b'"'
        elif how == 3:
            items = b",".join(b'{"t":"tuple","v":[%d,"a"]}' % at for at in range(size // 30))
            value = b'{"t":"%s","v":[%s]}' % (r.choice((b"set", b"frozenset", b"deque")), items)
        elif how == 4:
            modulus = (1 << 61) - 1
            items = b",".join(b"[%d,1]" % (at * modulus) for at in range(min(size // 30, 200_000)))
            value = b'{"t":"dict","v":[%s]}' % items
        else:
            value = b'{"t":"int","v":"0x' + b"f" * size + b'"}'
        key = r.choice((b'"ok"', b'"wall"', b'"error"', b'"hello"', b'"changed"'))
        return b'{"id":ID,' + key + b":" + value + b"}"

    def mutated(self, data: bytes) -> bytes:
        r = self.random
        changed = bytearray(data)
        for _ in range(r.randrange(1, 6)):
            at = r.randrange(len(changed) + 1)
            how = r.randrange(4)
            if how == 0:
                changed[at : at + r.randrange(8)] = b""
            elif how == 1:
                changed[at:at] = bytes(r.choice(b'[]{},:"\\0-9eE.tfnu \xff') for _ in range(r.randrange(1, 4)))
            elif how == 2:
                changed[at:at] = changed[at : at + r.randrange(1, 30)] * r.randrange(1, 4)
            elif changed:
                changed[at % len(changed)] = r.randrange(256)
        return bytes(changed)

    def next(self, number: int) -> bytes:
        if number % LARGE_EVERY == LARGE_EVERY - 1:
            return self.large()
        data = json.dumps(self.message(), separators=(",", ":")).encode().replace(b'"ID"', b"ID")
        return self.mutated(data) if self.random.random() < 0.5 else data


def host(data: bytes, number: int) -> list[RunOutcome]:
    """What the host makes of a frame, all three ways in which it may come to hear it."""
    try:
        message = codec.loads(data, bounds.MAX_JUDGED_CONTAINERS)
    except codec.CodecError as error:
        return [RunOutcome(Verdict.INVALID_RESULT, bounds.text(str(error)))]
    if type(message) is not dict:
        return []
    expected = EXPECTED[number % len(EXPECTED)]
    tolerance = 1e-6 if number % 2 else None
    call = EntryPointCall([], [], lambda tree: judge_value(tree, expected, tolerance))
    number_asked: Any = message.get("id")
    outcomes = [reply_outcome(message, number_asked, call)]
    if len(data) <= bounds.MAX_LITERAL_BYTES:
        how = ("==", "is", "truth")[number % 3]
        literal = EntryPointCall([], [], lambda tree: judge_literal(tree, how, expected, True, "no"))
        try:
            outcomes.append(reply_outcome(message, number_asked, literal))
        except Undecided:
            outcomes.append(RunOutcome(None, "undecided"))
    outcomes.append(greeting_outcome(message) or RunOutcome(None, "loaded"))
    return outcomes


class Scripted:
    """A socket on which the same frame comes again and again, with the number that was asked for."""

    def __init__(self, data: bytes, times: int = 6) -> None:
        self.data, self.times = data, times
        self.endpoint: Any = None
        self.pending = b""

    def sendall(self, data: bytes) -> None:
        pass

    def recv(self, size: int) -> bytes:
        if not self.pending and self.times:
            self.times -= 1
            data = self.data.replace(b"ID", b"%d" % self.endpoint.next_id, 1)
            self.pending = len(data).to_bytes(4, "big") + data
        part, self.pending = self.pending[:size], self.pending[size:]
        return part


def exercise(endpoint: Any, number: int) -> None:
    """What a test may do."""
    value = endpoint.request("get", name="f")
    lent = [1, [2]]
    if number % 3 == 0 and callable(value):
        value = value(lent, key=str)
    if number % 3 == 1:
        assert value == EXPECTED[number % len(EXPECTED)], "no"
    if number % 5 == 0:
        for _ in value:
            pass
    if number % 7 == 0:
        assert str(value)
        assert len(value) > 1
    assert value in (1, 2)


def test_process(data: bytes, number: int) -> list[RunOutcome]:
    wire: Any = Scripted(data, 2 if len(data) > 100_000 else 6)
    endpoint = Endpoint(wire, perform, guarded=True)
    wire.endpoint = endpoint
    text = "assert f(1) in (1, 2)"
    verdict, reason = judge(endpoint, text, lambda: exercise(endpoint, number), [text])
    word = codec.dumps({"done": [verdict, reason]})
    if len(word) > bounds.MAX_WORD_BYTES:
        raise AssertionError(f"a word of {len(word)} bytes")
    if verdict in ("lost", "invalid"):
        return [RunOutcome(None, verdict)]
    return [isolated_tests.outcome_of(codec.loads(word)["done"])]


def check(outcome: RunOutcome, number: int) -> str:
    """The verdict, once it is seen that it can be told."""
    if len(outcome.detail) > bounds.MAX_DETAIL + 1:
        raise AssertionError(f"message {number}: a detail of {len(outcome.detail)} characters")
    if outcome.verdict is None:
        return outcome.detail
    test = TestReport(outcome.verdict, detail=outcome.detail)
    report = bounded(Report(outcome.verdict, 0, 1, (test,), "split", "strong"))
    if len(encode(Executed(report))) > bounds.MAX_REPORT_BYTES:
        raise AssertionError(f"message {number}: a report past its bound")
    return str(outcome.verdict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first message, to see one again")
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MB << 20, resource.RLIM_INFINITY))
    worst: dict[str, tuple[float, int, int]] = {}
    told: dict[str, Counter[str]] = {"host": Counter(), "test process": Counter()}
    bad: list[str] = []
    began = time.monotonic()
    for number in range(asked.first, asked.first + asked.messages):
        data = Grammar(asked.seed * 10**9 + number).next(number)
        ways: dict[str, Callable[[], list[RunOutcome]]] = {
            "host": partial(host, data.replace(b"ID", b"1", 1), number),
            "test process": partial(test_process, data, number),
        }
        for way, work in ways.items():
            cpu = time.process_time()
            try:
                told[way].update(check(outcome, number) for outcome in work())
            except (Exception, Lost, Unsplittable) as error:  # noqa: BLE001 - that is the find
                bad.append(f"message {number}, {way}: {type(error).__name__}: {error}"[:200])
            cpu = time.process_time() - cpu
            if cpu > worst.get(way, (0.0, 0, 0))[0]:
                worst[way] = (cpu, number, len(data))
            if cpu > BUDGET_S:
                bad.append(f"message {number}, {way}: {cpu:.2f} s of CPU time for {len(data)} bytes")
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{asked.messages} messages in {time.monotonic() - began:.0f} s, seed {asked.seed}, under {MEMORY_MB} MB")
    for way, (cpu, number, size) in worst.items():
        print(
            f"{way}: at most {1000 * cpu:.0f} ms of CPU time (message {number}, {size} bytes); "
            f"{', '.join(f'{word} {count}' for word, count in sorted(told[way].items()))}"
        )
    print(f"memory at most {memory_mb:.0f} MB; broken bounds: {len(bad)}")
    print("\n".join(bad[:20]))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
