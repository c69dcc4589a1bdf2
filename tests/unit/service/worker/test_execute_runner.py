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
    context.stopping = False
    task = ExecuteTask("python", "pass", "0" * 64, Limits(), toolchain="t")
    lease = SimpleNamespace(id="job", task=task, key="k", reclaimed=False, queued_ms=0, trace="")
    runner.step([lease], context)  # type: ignore[list-item]
    (job,) = (job for call in context.answer_all.call_args_list for job in call.args[0])
    body = job.body
    assert isinstance(body, Failed)
    assert (body.code, body.retryable) == ("suite_unreadable", True)
    assert runner.info["suites"] == list(SUITE_KINDS)
