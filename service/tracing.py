"""Traces by OpenTelemetry: spans of the API, of the queue, of the workers, and of the runs in a jail.

- Off unless `OTEL_TRACES_EXPORTER` (`otlp`, `console`) or an OTLP endpoint is set, as OpenTelemetry's own specification
  names these variables. While it is off nothing of OpenTelemetry is imported, and a span costs one comparison.
- A trace goes on across processes as a W3C `traceparent`: in a request's header, and beside a job in the queue. It is
  no part of a job's identity, so a request that joins another's job finds that job's spans in the other's trace.
- The console exporter writes to stderr, a JSON object a line, as logs are.
- Spans hold sizes, times, verdicts, names of models and languages. They hold no text of a prompt or a program.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from plaudit.errors import HostLacks, UsageError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

SpanKind = Literal["internal", "server", "consumer"]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
EXPORTERS = ("otlp", "console")


class Span:
    """A span that is recorded, or nothing at all."""

    __slots__ = ("_span",)

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def __bool__(self) -> bool:
        return self._span is not None

    @property
    def trace_id(self) -> str:
        """In hex; empty for nothing, and where the sampler leaves this trace out."""
        context = None if self._span is None else self._span.get_span_context()
        return f"{context.trace_id:032x}" if context is not None and context.trace_flags.sampled else ""

    def set(self, **attributes: str | float | bool) -> None:
        """Set attributes under the prefix `plaudit.`."""
        if self._span is not None:
            self._span.set_attributes({f"plaudit.{name}": value for name, value in attributes.items()})

    def set_http(self, route: str, method: str, status: int) -> None:
        """Set what the semantic conventions say of an HTTP request; a server error is an error of the span."""
        if self._span is None:
            return
        self._span.update_name(f"{method} {route}")
        self._span.set_attributes(
            {"http.route": route, "http.request.method": method, "http.response.status_code": status}
        )
        if status >= 500:
            self.fail(f"HTTP {status}")

    def fail(self, detail: str) -> None:
        if self._span is not None:
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR, detail)


NO_SPAN = Span()
_tracer: Tracer | None = None
_provider: Any = None


def configure(process: str, environ: Mapping[str, str] | None = None, exporter: Any = None) -> bool:
    """Turn tracing on in this process if OTEL_* asks for it. Call once, before any thread is started.

    Args:
        process: names the service in traces where `OTEL_SERVICE_NAME` does not: `api`, `scorer`, `executor`.
        environ: the environment; `os.environ` if None.
        exporter: an exporter of spans to use whatever the environment says, for tests.

    Returns:
        Whether it is on.

    Raises:
        HostLacks: tracing is asked for, and the extra `otel` is not installed.
        UsageError: an exporter that is not known here.
    """
    global _tracer, _provider
    variables = os.environ if environ is None else environ
    names = _exporters(variables) if exporter is None else []
    if not names and exporter is None:
        return False
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    except ImportError as error:
        raise HostLacks(
            f"OTEL_* asks for traces, and OpenTelemetry is missing ({error}): pip install 'plaudit-server[otel]', or "
            "set OTEL_SDK_DISABLED=true"
        ) from error
    given = {} if "OTEL_SERVICE_NAME" in variables else {"service.name": f"plaudit-{process}"}
    provider = TracerProvider(resource=Resource.create({**given, "process.pid": os.getpid()}))
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    for name in names:
        provider.add_span_processor(BatchSpanProcessor(_open_exporter(name)))
    _provider, _tracer = provider, provider.get_tracer("plaudit")
    return True


def _exporters(variables: Mapping[str, str]) -> list[str]:
    if variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return []
    asked = variables.get("OTEL_TRACES_EXPORTER", "")
    if not asked and any(variables.get(name) for name in ENDPOINTS):
        asked = "otlp"
    names = [name.strip() for name in asked.split(",") if name.strip() not in ("", "none")]
    for name in names:
        if name not in EXPORTERS:
            raise UsageError(f"OTEL_TRACES_EXPORTER: takes {', '.join(EXPORTERS)} or none, not {name!r}")
    return names


def _open_exporter(name: str) -> Any:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: span.to_json(indent=None) + "\n")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise HostLacks(
            f"the OTLP exporter is missing ({error}): pip install 'plaudit-server[otel]', which speaks http/protobuf"
        ) from error
    return OTLPSpanExporter()


def is_on() -> bool:
    return _tracer is not None


def shut_down() -> None:
    """Send what is waiting, and turn tracing off."""
    global _tracer, _provider
    if _provider is not None:
        provider, _provider, _tracer = _provider, None, None
        provider.shutdown()


def current() -> str:
    """The `traceparent` of the span that is open here; empty without one."""
    if _tracer is None:
        return ""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", "")


@contextlib.contextmanager
def span(
    name: str, *, parent: str | None = None, kind: SpanKind = "internal", began_s: float | None = None
) -> Iterator[Span]:
    """A span around a block; an exception that leaves it is an error of the span.

    Args:
        name: what is done, without what differs each time.
        parent: a `traceparent` from elsewhere, or "" for none; None: the span that is open here.
        kind: as OpenTelemetry has it.
        began_s: monotonic seconds, if it began before now.
    """
    if _tracer is None:
        yield NO_SPAN
        return
    from opentelemetry import trace

    with _tracer.start_as_current_span(
        name,
        context=_context_of(parent),
        kind=trace.SpanKind[kind.upper()],
        start_time=None if began_s is None else _unix_ns(began_s),
    ) as opened:
        yield Span(opened)


def record(
    name: str, began_s: float, ended_s: float, *, parent: str | None = None, **attributes: str | float | bool
) -> None:
    """A span that is over; times in monotonic seconds. `parent` as in `span`."""
    if _tracer is None:
        return
    made = _tracer.start_span(name, context=_context_of(parent), start_time=_unix_ns(began_s))
    Span(made).set(**attributes)
    made.end(_unix_ns(max(began_s, ended_s)))


def _context_of(parent: str | None) -> Any:
    """The context that a `traceparent` stands for; None: the current one."""
    if parent is None:
        return None
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": parent}, Context())


def _unix_ns(monotonic_s: float) -> int:
    return time.time_ns() - int((time.monotonic() - monotonic_s) * 1e9)
