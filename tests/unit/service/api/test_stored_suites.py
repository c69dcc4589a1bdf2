"""A stored suite that many items of a request name is fetched once, read once and kept once."""

from __future__ import annotations

import zlib
from types import SimpleNamespace
from typing import Any

from plaudit.schemas import ExecuteItem, ExecuteResult, ProgramResult
from sandbox.types import AssertSuite
from service.api.dispatch.request_context import RequestContext
from service.api.dispatch.shards import Shards
from service.api.handlers.execute import ExecutePlan
from service.api.handlers.replays import _decoder, pack, unpack
from service.jobs import encode_suite

SHA256 = "a" * 64
FRAME = encode_suite(AssertSuite(("assert f() == 1",) * 50_000))


async def test_a_suite_named_by_many_items_is_fetched_and_kept_once() -> None:
    fetched: list[str] = []

    async def get_suite(sha256: str) -> bytes:
        fetched.append(sha256)
        return FRAME

    queue: Any = SimpleNamespace(get_suite=get_suite)
    dispatcher: Any = SimpleNamespace(shards=Shards({"": queue}), fleet=SimpleNamespace(toolchain="t"))
    raw = {"language": "python", "programs": ["x = 1"], "tests": {"kind": "ref", "sha256": SHA256}}
    items = [ExecuteItem.model_validate(raw)] * 64
    plan = await ExecutePlan.make(items, dispatcher, RequestContext("r", 1))

    assert fetched == [SHA256]
    assert all(group.frame is FRAME and group.num_tests == 50_000 for group in plan.groups)

    results = [ExecuteResult(programs=[ProgramResult(status="cancelled", trainable=False)])] * 64
    record = _decoder.decode(zlib.decompress(pack(0, "t", plan.groups, results)))
    assert [len(item.frame) for item in record.items] == [len(FRAME)] + [0] * 63
    first, second = unpack(record.items[0]).request.tests, unpack(record.items[1]).request.tests
    assert first.kind == "assert"
    assert second.model_dump() == {"kind": "ref", "sha256": SHA256}
