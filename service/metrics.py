"""Every Prometheus metric of every process. Names, labels and units are a contract with the dashboards.

- Under `plaudit up` the values of all processes are summed through prometheus-client's multiprocess folder. The API's
  `/metrics` shows the sums.
- A worker that was started on its own serves its metrics on `metrics_port`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import REGISTRY as LOCAL
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    multiprocess,
    start_http_server,
)
from prometheus_client.core import Exemplar, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

disable_created_metrics()  # type: ignore[no-untyped-call]  # would double the series, and no dashboard reads them

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

http_requests = Counter("plaudit_http_requests_total", "HTTP requests answered", ["route", "method", "status"])
http_seconds = Histogram("plaudit_http_request_seconds", "Time to answer", ["route"], buckets=SECONDS)
rejected = Counter("plaudit_rejected_total", "Requests rejected, by reason", ["reason"])

jobs = Counter("plaudit_jobs_total", "Jobs ended, by final state", ["kind", "state"])
job_queue_seconds = Histogram(
    "plaudit_job_queue_seconds", "Time from admission to the start of the work", ["kind"], buckets=SECONDS
)
job_compute_seconds = Histogram("plaudit_job_compute_seconds", "Time of the work itself", ["kind"], buckets=SECONDS)
cache_hits = Counter("plaudit_cache_hits_total", "Results answered from the cache", ["kind"])
infra_errors = Counter("plaudit_infra_errors_total", "Results lost to server errors", ["kind", "code"])

unreadable = Counter("plaudit_unreadable_total", "Frames in Redis that this version cannot read, skipped", ["what"])
loop_failures = Counter("plaudit_loop_failures_total", "Failed turns of a background loop", ["loop"])

activations = Counter("plaudit_activations_total", "Swaps of a model's revision, by outcome", ["model", "outcome"])

score_batch_tokens = Histogram(
    "plaudit_score_batch_tokens", "Tokens computed in one batch", buckets=[2**n for n in range(5, 18)]
)
score_batch_groups = Histogram(
    "plaudit_score_batch_groups", "Groups in one batch", buckets=[1, 2, 4, 8, 16, 32, 64, 128]
)
score_tokens = Counter(
    "plaudit_score_tokens_total", "Tokens of batches: computed, padding, or shared (not computed)", ["kind"]
)
prompt_cache_lookups = Counter(
    "plaudit_prompt_cache_lookups_total",
    "Prompts of batches, by whether their keys and values were cached",
    ["outcome"],
)
prompt_cache_bytes = Gauge(
    "plaudit_prompt_cache_bytes", "Size of the cached keys and values of prompts", multiprocess_mode="livesum"
)
score_value = Histogram(
    "plaudit_score_value", "Raw scores", ["model"], buckets=[-32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 32]
)

judge_requests = Counter(
    "plaudit_judge_requests_total", "Requests to the servers of judges, by outcome", ["model", "outcome"]
)
judge_tokens = Counter(
    "plaudit_judge_tokens_total",
    "Tokens of requests to judges and of their answers, as the servers count",
    ["model", "kind"],
)

verdicts = Counter("plaudit_verdicts_total", "Verdicts of programs", ["language", "verdict"])
flags = Counter("plaudit_flags_total", "Flags of judged programs, without what stands behind a colon", ["flag"])
module_unavailable = Counter(
    "plaudit_module_unavailable_total", "Programs that failed because the host lacks a module", ["module"]
)
tests = Counter("plaudit_tests_total", "Verdicts of single tests", ["verdict"])

build_info = Gauge("plaudit_build_info", "Version of the running code", ["version"], multiprocess_mode="max")


class GaugeSnapshot(Collector):
    """Gauges whose values are known at scrape time.

    Args:
        gauges: Per gauge its name, its help text, its one label, and its value per value of that label. A gauge with
            the label "" has one value, under "".
    """

    def __init__(self, gauges: Iterable[tuple[str, str, str, Mapping[str, float]]]) -> None:
        self.gauges = list(gauges)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, text, label, values in self.gauges:
            family = GaugeMetricFamily(name, text, labels=[label] if label else [])
            for key, value in values.items():
                family.add_metric([key] if label else [], value)
            yield family


def queue_gauges(
    depth: Mapping[str, float],
    cost: Mapping[str, float],
    oldest_s: Mapping[str, float],
    rate: Mapping[str, float],
    workers: Mapping[str, float],
) -> GaugeSnapshot:
    """The gauges of queues and workers.

    Args:
        depth: Jobs per queue.
        cost: Tokens or CPU seconds per queue.
        oldest_s: Age of the oldest waiting job per queue.
        rate: Cost drained per second, per queue.
        workers: Live workers per kind.
    """
    return GaugeSnapshot(
        [
            ("plaudit_queue_depth", "Jobs waiting or running", "queue", depth),
            ("plaudit_queue_cost", "Cost of the jobs waiting or running: tokens or CPU seconds", "queue", cost),
            ("plaudit_queue_oldest_seconds", "Age of the oldest waiting job", "queue", oldest_s),
            ("plaudit_queue_drain_rate", "Cost of the jobs that end per second while there is work", "queue", rate),
            ("plaudit_workers", "Live workers", "kind", workers),
        ]
    )


def memory_gauges(
    used_bytes: float, max_bytes: float, family_bytes: Mapping[str, float], family_max_bytes: Mapping[str, float]
) -> GaugeSnapshot:
    """The gauges of Redis' memory, as a whole and per family of keys."""
    return GaugeSnapshot(
        [
            ("plaudit_redis_used_bytes", "Memory that Redis uses", "", {"": used_bytes}),
            ("plaudit_redis_max_bytes", "Memory that Redis may use; 0: it has no limit", "", {"": max_bytes}),
            ("plaudit_redis_family_bytes", "Bytes of the keys of a family", "family", family_bytes),
            ("plaudit_redis_family_max_bytes", "Budget of a family of keys", "family", family_max_bytes),
        ]
    )


def shard_gauges(up: Mapping[str, bool]) -> GaugeSnapshot:
    """The gauges of several Redis: whether each of them answers, by its name."""
    if not up:
        return GaugeSnapshot([])
    values = {name: float(answers) for name, answers in up.items()}
    return GaugeSnapshot(
        [
            ("plaudit_shard_up", "Whether a Redis of several answers", "shard", values),
        ]
    )


def _registry() -> CollectorRegistry:
    """The values of this process, or of its whole tree where `plaudit up` has set prometheus-client's own variable."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return LOCAL
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


class Exemplars:
    """The latest observation of each bucket of some histograms that can be looked up, by an id: one per process.

    prometheus-client keeps none where several processes share their values, so these are kept here, for both cases.
    """

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str, str], Exemplar] = {}

    def observe(self, histogram: str, label: str, seconds: float, labels: Mapping[str, str]) -> None:
        """Take in an observation.

        Args:
            histogram: its name.
            label: the value of its one label.
            seconds: what was observed.
            labels: what names the request.
        """
        bound = next((bound for bound in SECONDS if seconds <= bound), float("inf"))
        le = str(floatToGoString(bound))  # type: ignore[no-untyped-call]
        self._latest[histogram, label, le] = Exemplar(dict(labels), seconds, time.time())

    def attached(self, family: Metric) -> Metric:
        """The family, with an exemplar on each bucket that has one."""
        if not any(name == family.name for name, _, _ in self._latest):
            return family
        with_exemplars = Metric(family.name, family.documentation, family.type, family.unit)
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                (label,) = [value for name, value in sample.labels.items() if name != "le"]
                sample = sample._replace(exemplar=self._latest.get((family.name, label, sample.labels["le"])))
            with_exemplars.samples.append(sample)
        return with_exemplars


exemplars = Exemplars()


class _Everything(Collector):
    """The values of this process or its tree, with exemplars, and gauges known at scrape time.

    `open_metrics`: whether they are to be said in that format, in which a histogram without a sum (of values below 0)
    has no count, but that of its last bucket.
    """

    def __init__(self, snapshots: Iterable[GaugeSnapshot], *, open_metrics: bool) -> None:
        self.snapshots = list(snapshots)
        self.open_metrics = open_metrics

    def collect(self) -> Iterator[Metric]:
        for family in _registry().collect():
            if self.open_metrics and not any(sample.name.endswith("_sum") for sample in family.samples):
                family.samples = [sample for sample in family.samples if not sample.name.endswith("_count")]
            yield exemplars.attached(family)
        for snapshot in self.snapshots:
            yield from snapshot.collect()


def exposition(accept: str, *snapshots: GaugeSnapshot) -> tuple[bytes, str]:
    """What the API answers to a scrape, and its media type.

    Args:
        accept: the scrape's header. Only OpenMetrics has exemplars; without it the answer is Prometheus' text format.
        snapshots: gauges known now.
    """
    encode, media_type = choose_encoder(accept)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Everything(snapshots, open_metrics=media_type.startswith("application/openmetrics-text")))
    return encode(registry), media_type


def serve(port: int) -> None:
    """Serve a worker's own `/metrics` on a port, in a daemon thread."""
    start_http_server(port, registry=_registry())
