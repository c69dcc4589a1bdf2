"""An executor meets a test suite of a kind that it does not know: the job ends, and may be tried elsewhere."""

from __future__ import annotations

import json
from types import SimpleNamespace
from unittest.mock import Mock

from sandbox.types import Limits
from service.jobs import SUITE_KINDS, ExecuteTask, Failed
from service.settings import Settings
from service.worker.execute import ExecuteRunner


def test_a_suite_of_a_later_version_is_a_retryable_failure() -> None:
    box = Mock(level="strong", toolchain_digest="t", languages=lambda: [])
    runner, context = ExecuteRunner(Settings(), box), Mock()
    context.suite.return_value = json.dumps({"kind": "of-tomorrow", "suite": {}}).encode()
    lease = SimpleNamespace(task=ExecuteTask("python", "pass", "0" * 64, Limits(), toolchain="t"), key="k")
    runner.step([lease], context)  # type: ignore[list-item]
    (_, body), _ = context.answer.call_args
    assert isinstance(body, Failed)
    assert (body.code, body.retryable) == ("suite_unreadable", True)
    assert runner.info["suites"] == list(SUITE_KINDS)
