"""Whether this deployment is ready to work, and the probes that find out.

A worker's announcement says that it lives. That it works is known once it has done a job, so a probe is sent to each
kind of worker of which no live one has done any.
"""

from __future__ import annotations

import logging

from plaudit.errors import NoWorker, PlauditError
from plaudit.schemas import Readiness, ShardState
from sandbox.types import AssertSuite, Limits
from service.api.dispatch.fleet import Fleet
from service.api.dispatch.request_context import RequestContext, new_request_id
from service.api.dispatch.shard_monitor import ShardMonitor
from service.api.dispatch.submission import Dispatcher
from service.api.dispatch.tasks import gather_or_cancel
from service.jobs import Executed, ExecuteTask, Job, Scored, ScoreTask, content_hash, encode, encode_suite
from service.queue.keys import EXECUTE_QUEUE, queue_of_model
from service.queue.protocol import now_ms
from service.settings import Settings

log = logging.getLogger("plaudit.readiness")

PROBE_TIMEOUT_S = 30.0
KEEP_PROBE_SUITE_S = 120
PROBE_PROGRAM = "def one():\n    return 1\n"
PROBE_SUITE = AssertSuite(("assert one() == 1",), entry_point="one")


def readiness(fleet: Fleet, settings: Settings) -> Readiness:
    """Ready: the broker answers, and of each kind of worker that this deployment has a live one has done a job.

    A deployment with `scorers` 0 is ready without scorers, one with `executors` 0 without executors. One with neither
    has its workers elsewhere and waits for both kinds. Of several shards one is enough.
    """
    problems = [_problems(monitor, settings) for monitor in fleet.monitors]
    sharded = len(fleet.monitors) > 1
    return Readiness(
        ready=not all(problems),
        broker=fleet.broker,
        scorers=len(fleet.of_kind("score")),
        executors=len(fleet.of_kind("execute")),
        reasons=[
            f"shard {monitor.name}: {problem}" if sharded else problem
            for monitor, lacking in zip(fleet.monitors, problems, strict=True)
            for problem in lacking
        ],
        shards=shard_states(fleet, settings) or None,
    )


def shard_states(fleet: Fleet, settings: Settings) -> list[ShardState]:
    """Every shard, if there are several."""
    if len(fleet.monitors) == 1:
        return []
    return [
        ShardState(
            name=monitor.name,
            url=monitor.url,
            up=monitor.broker,
            scorers=len(monitor.of_kind("score")) if monitor.broker else 0,
            executors=len(monitor.of_kind("execute")) if monitor.broker else 0,
            problems=_problems(monitor, settings),
        )
        for monitor in fleet.monitors
    ]


def _problems(monitor: ShardMonitor, settings: Settings) -> list[str]:
    """Why no work can be done on a shard."""
    problems = [] if monitor.broker else ["the queue does not answer"]
    if monitor.name and not monitor.broker:
        return problems
    if monitor.other_list:
        problems.append(monitor.other_list)
    kinds = (("score", "scoring", settings.scorers), ("execute", "executing", settings.executors))
    workers_elsewhere = all(num_workers == 0 for _, _, num_workers in kinds)
    for kind, name, num_workers in kinds:
        if num_workers == 0 and not workers_elsewhere:
            continue
        if not monitor.of_kind(kind):
            problems.append(f"no {name} worker is alive")
        elif not monitor.proven(kind):
            problems.append(f"no {name} worker has answered the probe yet")
    return problems


async def probe_workers(dispatcher: Dispatcher) -> None:
    """Send one real job to each kind of worker of each shard of which no live one has done a job."""
    await gather_or_cancel(_probe_shard(dispatcher, shard) for shard in range(len(dispatcher.shards)))


async def _probe_shard(dispatcher: Dispatcher, shard: int) -> None:
    monitor = dispatcher.fleet.monitors[shard]
    for kind in ("score", "execute"):
        if not monitor.broker or not monitor.of_kind(kind) or monitor.proven(kind):
            continue
        context = RequestContext(new_request_id(), now_ms() + int(PROBE_TIMEOUT_S * 1000), lane="high")
        make_probe = _score_probe if kind == "score" else _execute_probe
        try:
            job = await make_probe(dispatcher, context, shard)
            async with dispatcher.submission(context) as submission:
                await submission.submit([job], use_cache=False, unbounded=True)
                reply = await submission.reply(job.id)
        except PlauditError as error:
            log.warning("the probe of %s workers failed: %s", kind, error.detail)
            continue
        if not isinstance(reply.body, Scored | Executed):
            log.warning("the probe of %s workers failed: %s", kind, reply.body.detail)


# Probes have an identity of their own, so that no cached reply can answer them.


async def _score_probe(dispatcher: Dispatcher, context: RequestContext, shard: int) -> Job:
    model = next(iter(dispatcher.fleet.models.values()), None)
    if model is None:
        raise NoWorker("no worker serves the active revision yet")
    nonce = context.request_id
    task = encode(ScoreTask(model.name, model.revision, "Say yes.", [f"yes {nonce}"]))
    queue = queue_of_model(model.name)
    return Job(
        content_hash(nonce), "score", queue, "high", task, 16.0, context.deadline_ms, tag=model.revision, shard=shard
    )


async def _execute_probe(dispatcher: Dispatcher, context: RequestContext, shard: int) -> Job:
    nonce = context.request_id
    suite, frame = f"probe-{nonce}", encode_suite(PROBE_SUITE)
    await dispatcher.shards.queues[shard].put_suites({suite: frame}, KEEP_PROBE_SUITE_S, bounded=False)
    task = encode(ExecuteTask("python", PROBE_PROGRAM, suite, Limits()))
    return Job(content_hash(nonce), "execute", EXECUTE_QUEUE, "high", task, 5.0, context.deadline_ms, shard=shard)
