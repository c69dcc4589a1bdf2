"""Names of the Redis keys, and the scripts."""

from __future__ import annotations

from importlib import resources

from service.jobs import LANES, Kind, Lane

GROUP = "workers"
BLOCK_S = 0.5  # a blocked read, in seconds: shorter than any socket timeout


class Keys:
    """Every key under one namespace."""

    def __init__(self, namespace: str) -> None:
        self.prefix = f"{namespace}:"
        self.workers = f"{self.prefix}workers"
        self.workers_info = f"{self.prefix}workers:info"

    def stream(self, queue: str, lane: Lane) -> str:
        return f"{self.prefix}stream:{queue}:{lane}"

    def streams(self, queue: str) -> list[str]:
        return [self.stream(queue, lane) for lane in LANES]

    def load(self, queue: str) -> str:
        return f"{self.prefix}load:{queue}"

    def live(self, queue: str) -> str:
        return f"{self.prefix}live:{queue}"

    def tags(self, queue: str) -> str:
        return f"{self.prefix}tags:{queue}"

    def tenants(self, queue: str) -> str:
        return f"{self.prefix}tenants:{queue}"

    def accounting(self, queue: str) -> list[str]:
        """The keys in which the scripts account for a queue's live jobs: load, live, tags, tenants."""
        return [self.load(queue), self.live(queue), self.tags(queue), self.tenants(queue)]

    def active(self, queue: str) -> str:
        return f"{self.prefix}active:{queue}"

    def activation_request(self, queue: str) -> str:
        return f"{self.prefix}order:{queue}"

    def activation_reports(self, request: str) -> str:
        return f"{self.prefix}reports:{request}"

    @property
    def sources(self) -> str:
        return f"{self.prefix}sources"

    def begun(self, queue: str) -> str:
        return f"{self.prefix}begun:{queue}"

    def suite(self, sha256: str) -> str:
        return f"{self.prefix}suite:{sha256}"

    def reply(self, api: str) -> str:
        return f"{self.prefix}reply:{api}"

    def wake(self, api: str) -> str:
        return f"{self.prefix}wake:{api}"

    def cache(self, job: str) -> str:
        return f"{self.prefix}cache:{job}"

    def last(self, job: str) -> str:
        return f"{self.prefix}last:{job}"

    def job(self, job: str) -> str:
        return f"{self.prefix}job:{job}"

    @property
    def shards(self) -> str:
        return f"{self.prefix}shards"

    @property
    def written(self) -> str:
        return f"{self.prefix}written"

    @property
    def budgets(self) -> str:
        return f"{self.prefix}budgets"


def script(name: str, *, spare: bool = False) -> str:
    """Source of a script in `lua/`, behind the source of what it builds on.

    `spare`: let it run even if the broker's memory is full, for scripts that free more than they take.
    """
    folder = resources.files("service.queue").joinpath("lua")
    parts = [*BUILT_ON.get(name, ()), name]
    source = "\n".join(folder.joinpath(f"{part}.lua").read_text("utf-8") for part in parts)
    return f"#!lua flags=allow-oom\n{source}" if spare else source


def queue_of_model(model: str) -> str:
    return f"score:{model}"


EXECUTE_QUEUE = "execute"
BUILT_ON = {
    "finish": ("accounting", "clock", "bytes"),
    "submit": ("accounting", "clock", "bytes"),
    **dict.fromkeys(("leave", "recount"), ("accounting",)),
    **dict.fromkeys(("announce", "lease", "sweep"), ("clock",)),
    **dict.fromkeys(("claim", "event", "memory", "remember", "settle", "suite"), ("clock", "bytes")),
}


def kind_of_queue(queue: str) -> Kind:
    return "execute" if queue == EXECUTE_QUEUE else "score"
