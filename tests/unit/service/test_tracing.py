"""Tracing: off it costs nothing and imports nothing; on, spans hang together across processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from plaudit.errors import HostLacks, UsageError
from plaudit.transport import with_trace
from service import tracing

pytest.importorskip("opentelemetry.sdk", reason="needs the extra `otel`")
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    assert tracing.configure("test", {}, exporter)
    yield exporter
    tracing.shut_down()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_off_by_default_nothing_is_imported_and_a_span_is_nothing() -> None:
    script = (
        "import sys\nfrom service import tracing\nfrom plaudit.transport import with_trace\n"
        "assert not tracing.configure('api', {})\n"
        "with tracing.span('a') as span:\n    span.set(x=1)\n    span.set_http('/a', 'GET', 500)\n"
        "assert not span and tracing.current() == '' and with_trace({'a': 'b'}) == {'a': 'b'}\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "environ",
    [{}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "TRUE"}],
    ids=["unset", "none", "disabled"],
)
def test_the_environment_leaves_it_off(environ: dict[str, str]) -> None:
    assert not tracing.configure("test", environ)
    assert not tracing.is_on()


def test_an_unknown_exporter_is_a_usage_error_that_names_the_variable() -> None:
    with pytest.raises(UsageError, match=r"OTEL_TRACES_EXPORTER: takes otlp, console or none, not 'zipkin'"):
        tracing.configure("test", {"OTEL_TRACES_EXPORTER": "zipkin"})


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(HostLacks, match=r"plaudit-server\[otel\]"):
        tracing.configure("test", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})


def test_a_trace_goes_on_by_its_traceparent(spans: InMemorySpanExporter) -> None:
    with tracing.span("request", kind="server", parent="") as request:
        traceparent = tracing.current()
        assert traceparent.split("-")[1] == request.trace_id
    with tracing.span("execute", kind="consumer", parent=traceparent):
        tracing.record("run program", time.monotonic() - 0.5, time.monotonic(), cpu_ms=3.0)
    with tracing.span("elsewhere", parent=""):
        pass
    found = by_name(spans)
    assert found["request"].parent is None
    assert found["execute"].parent is not None
    assert found["execute"].parent.span_id == found["request"].context.span_id
    assert found["run program"].parent.span_id == found["execute"].context.span_id  # type: ignore[union-attr]
    lasted_ns = found["run program"].end_time - found["run program"].start_time  # type: ignore[operator]
    assert lasted_ns == pytest.approx(0.5e9, rel=0.05)
    assert found["run program"].attributes == {"plaudit.cpu_ms": 3.0}
    assert found["elsewhere"].context.trace_id != found["request"].context.trace_id


@pytest.mark.parametrize("given", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ü"])
def test_a_traceparent_that_cannot_be_read_begins_a_new_trace(given: str, spans: InMemorySpanExporter) -> None:
    with tracing.span("request", parent=given):
        pass
    assert by_name(spans)["request"].parent is None


def test_an_exception_and_a_server_error_are_errors_of_the_span(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="broken"), tracing.span("broken"):
        raise ValueError("broken")
    with tracing.span("GET") as span:
        span.set_http("/a", "GET", 503)
    found = by_name(spans)
    assert not found["broken"].status.is_ok
    assert found["GET /a"].status.description == "HTTP 503"


def test_the_client_sends_the_span_that_is_open(spans: InMemorySpanExporter) -> None:
    with tracing.span("step of a trainer") as span:
        sent = with_trace({"Content-Type": "application/json"})
    assert sent["traceparent"].split("-")[1] == span.trace_id
    assert sent["Content-Type"] == "application/json"
    assert "traceparent" not in with_trace({})
