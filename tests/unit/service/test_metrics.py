"""The exposition: two formats, and exemplars where the scrape takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from service import metrics

OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


@pytest.fixture
def latency(monkeypatch: pytest.MonkeyPatch) -> Histogram:
    registry = CollectorRegistry()
    histogram = Histogram("seconds", "text", ["route"], buckets=metrics.SECONDS, registry=registry)
    monkeypatch.setattr(metrics, "LOCAL", registry)
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.setattr(metrics, "exemplars", metrics.Exemplars())
    return histogram


def buckets(families: Any) -> dict[str, Any]:
    return {
        sample.labels["le"]: sample.exemplar
        for family in families
        for sample in family.samples
        if sample.name == "seconds_bucket" and sample.exemplar is not None
    }


def test_a_bucket_names_its_latest_request_where_open_metrics_are_taken(latency: Histogram) -> None:
    for seconds, request_id in ((0.02, "first"), (0.021, "second"), (400.0, "slowest")):
        latency.labels("/rank").observe(seconds)
        metrics.exemplars.observe("seconds", "/rank", seconds, {"request_id": request_id})
    content, media_type = metrics.exposition(OPEN_METRICS)
    assert media_type.startswith("application/openmetrics-text")
    found = buckets(open_metrics(content.decode()))
    assert {le: one.labels for le, one in found.items()} == {
        "0.025": {"request_id": "second"},
        "+Inf": {"request_id": "slowest"},
    }
    assert found["0.025"].value == 0.021


def test_the_text_format_has_none_and_keeps_the_gauges(latency: Histogram) -> None:
    latency.labels("/rank").observe(1.0)
    metrics.exemplars.observe("seconds", "/rank", 1.0, {"request_id": "x"})
    gauges = metrics.GaugeSnapshot([("depth", "text", "queue", {"execute": 3.0})])
    content, media_type = metrics.exposition("text/plain", gauges)
    assert media_type.startswith("text/plain; version=0.0.4")
    assert b"request_id" not in content
    families = {family.name: family for family in plain_text(content.decode())}
    assert families["depth"].samples[0].value == 3.0


def test_every_metric_of_the_service_can_be_said_in_both_formats(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    metrics.http_seconds.labels("/rank").observe(0.1)
    metrics.flags.labels("reads_frames").inc()
    metrics.score_value.labels("default").observe(-3.0)
    content, _ = metrics.exposition(OPEN_METRICS)
    names = {family.name for family in open_metrics(content.decode())}
    assert {"plaudit_http_request_seconds", "plaudit_flags"} <= names
