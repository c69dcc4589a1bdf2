"""Every setting of every process: one frozen value, made once at the edge from flags, `PLAUDIT_*` and defaults.

Flags win over the environment, the environment over the defaults; an unknown `PLAUDIT_` variable is an error, so a
typo cannot pass for a setting. Nobody else in the product reads the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plaudit.errors import UsageError

PREFIX = "PLAUDIT_"
# Read by tests, examples and training recipes, not by the service; allowed to be set beside it.
FOREIGN = frozenset({"PLAUDIT_DATA", "PLAUDIT_URL"})

SECRETS = frozenset({"password", "sentinel_password"})  # parameters of a Redis URL
PACKAGE_ROOT = Path(__file__).resolve().parent.parent


def bundled_checkpoint() -> Path:
    """The folder of plaudit-mini: inside the package where a wheel was installed, beside it in a clone."""
    inside = Path(__file__).resolve().parent / "models" / "plaudit-mini"
    return inside if inside.is_dir() else PACKAGE_ROOT / "models" / "plaudit-mini"


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


class Settings(BaseModel):
    """Limits are `max_*`, counts `num_*`, and units are in the names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # where things are
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    redis_url: str | None = Field(
        None,
        description="redis://, rediss://, unix:// or sentinel:// of a Redis 7 or "
        "Valkey; empty: `plaudit up` starts its own Valkey",
    )
    redis_wait_s: Annotated[float, Field(ge=0)] = Field(30.0, description="how long Redis may be away at the start")
    namespace: str = Field("plaudit", pattern=r"^[A-Za-z0-9_.-]+$", description="prefix of every Redis key")
    model: dict[str, str] = Field(default_factory=dict, description="NAME=PATH_OR_HUB_ID of each model served")
    state_dir: Path | None = Field(
        None,
        description="where `plaudit up` keeps its broker's append-only file; "
        "empty: a fresh temporary folder, removed at the end",
    )

    # who may ask
    api_key: list[str] = Field(default_factory=list, description="keys that may call; none: open, loopback only")
    admin_key: list[str] = Field(default_factory=list, description="keys that may also call admin routes")
    accept_no_auth: bool = Field(False, description="allow binding beyond loopback without keys")

    # how many
    scorers: Annotated[int, Field(ge=0, le=64)] = 1
    executors: Annotated[int, Field(ge=0, le=1024)] | None = Field(None, description="empty: one per core")
    torch_threads: Annotated[int, Field(ge=1)] = 1

    # bounds at the door
    max_body_bytes: int = 64 * 1024 * 1024
    max_items: int = 256
    max_completions: int = Field(1024, description="completions or programs of one item")
    max_total_completions: int = Field(8192, description="completions or programs of one request")
    max_code_bytes: int = 256 * 1024
    max_tests: int = 1000
    max_stdin_bytes: int = 16 * 1024 * 1024
    max_cpu_s: float = 60.0
    max_wall_s: float = 180.0
    max_memory_mb: int = 4096
    max_output_kb: int = 16 * 1024
    max_processes: int = 256

    # bounds of the queues
    max_queued_score: int = Field(4096, description="groups waiting or running")
    max_queued_score_tokens: int = Field(16_000_000, description="their tokens, estimated at the door")
    max_queued_execute: int = Field(16384, description="programs waiting or running")
    max_queued_execute_cpu_s: float = Field(400_000.0, description="their CPU-seconds at worst, by their own limits")

    # time
    default_deadline_ms: int = Field(120_000, description="of a request that brings none")
    max_deadline_ms: int = 3_600_000
    async_deadline_ms: int = Field(3_600_000, description="of a `Prefer: respond-async` request that brings none")
    keep_results_s: int = Field(3600, description="idempotent and async answers")
    cache_s: int = Field(3600, description="finished deterministic results")
    keep_replays_s: Annotated[int, Field(ge=0)] = Field(
        3600, description="what is needed to reproduce a verdict, by request id; 0: kept nowhere"
    )
    max_replay_bytes: Annotated[int, Field(ge=1)] = Field(
        128 * 1024 * 1024, description="all of that, compressed; past it the oldest go"
    )
    lease_s: Annotated[float, Field(gt=0)] = Field(6.0, description="a job whose worker is silent so long is retaken")
    heartbeat_s: Annotated[float, Field(gt=0)] = 1.5
    max_deliveries: Annotated[int, Field(ge=1)] = Field(3, description="deliveries before a job counts as poisoned")
    drain_s: Annotated[float, Field(gt=0)] = Field(20.0, description="time to finish work at SIGTERM")

    # scoring
    max_batch_tokens: Annotated[int, Field(ge=1)] = 16384
    max_prompt_cache_bytes: Annotated[int, Field(ge=0)] = Field(
        256 * 1024 * 1024, description="keys and values of prompts that may come again, for each revision; 0: none"
    )
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|split|cuda(:\d+)?)$",
        description="where scores are computed: cpu, cuda, cuda:1, ...; auto: the first GPU, if there is one; split: a "
        "model's layers over all GPUs",
    )
    engine: Literal["transformers", "vllm"] = Field(
        "transformers", description="what computes scores (docs/engines.md)"
    )
    vllm_url: dict[str, str] = Field(default_factory=dict, description="NAME=URL of the vLLM server of each model")
    vllm_python: Path | None = Field(
        None,
        description="interpreter of an environment with vLLM in it: models without "
        "a URL get a server of their own, started and ended with the "
        "worker",
    )
    vllm_args: str = Field("", description="further arguments of a server that is started, as a shell would split them")
    vllm_api_key: str | None = Field(None, description="key of the vLLM servers at the URLs")
    vllm_start_s: Annotated[float, Field(gt=0)] = Field(300.0, description="time for a vLLM server to come up")
    deterministic: bool = Field(False, description="one sequence at a time: the same bits in any company, and slower")

    # executing
    isolation_accept: Literal["strong", "userns", "landlock", "none"] = Field(
        "strong",
        description="lowest isolation level this deployment accepts (docs/sandbox.md); executors with "
        "anything weaker refuse to start, and `none` is for loopback only",
    )
    executor_memory_mb: Annotated[int, Field(ge=256)] | None = Field(
        2048,
        description="memory that an executor's own process may use, programs not counted; past it a program whose "
        "answer takes so much is `invalid_result`, and anything else a retryable `infra_error`",
    )

    # other people's protocols
    dialects_off: list[str] = Field(default_factory=list, description="dialects not spoken here (docs/dialects.md)")
    fallback_reward: float = Field(
        0.0, description="told, beside `reward_ok` 0, to a trainer that would crash without a number"
    )

    # learning from what was asked
    candidates_dir: Path | None = Field(
        None,
        description="folder to log scored and executed candidates in, texts "
        "and all (docs/operations.md); empty: nothing",
    )
    max_candidates_bytes: Annotated[int, Field(ge=1)] = Field(
        1024 * 1024 * 1024, description="of one API process; past it no more candidates are logged"
    )

    # telling
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_payloads: bool = Field(False, description="log prompts, completions and programs; off unless you ask")
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(0, description="a worker's own /metrics; 0: off")

    @property
    def models(self) -> dict[str, str]:
        """What is served: `model`, or the checkpoint that ships with plaudit."""
        return self.model or {"default": str(bundled_checkpoint())}

    @property
    def loopback(self) -> bool:
        """Whether the API listens to this machine alone, said by a plain address and not by whom a name leads to."""
        return is_loopback(self.host)

    def refuse_open_none(self) -> None:
        """Level `none` is for one's own programs on one's own machine. Raises UsageError beyond it."""
        if self.isolation_accept != "none":
            return
        if not self.loopback:
            raise UsageError(
                "--isolation-accept none runs programs without walls, so for this machine only; --host "
                f"{self.host} is open to others: bind to 127.0.0.1, or accept landlock"
            )
        url = urlsplit(self.redis_url or "unix://")
        if url.scheme != "unix" and not is_loopback(url.hostname or "localhost"):
            raise UsageError(
                "--isolation-accept none runs programs without walls, so for this machine only; the queue "
                f"is on {url.hostname}: use one on 127.0.0.1, or accept landlock"
            )

    def public(self) -> dict[str, Any]:
        """The effective settings with secrets hidden, for `plaudit check` and the logs."""
        shown = self.model_dump(mode="json")
        for name in ("api_key", "admin_key"):
            shown[name] = ["***"] * len(shown[name])
        if self.vllm_api_key:
            shown["vllm_api_key"] = "***"
        if self.redis_url:
            shown["redis_url"] = masked(self.redis_url)
        return shown


def masked(url: str) -> str:
    """The URL with no secret in it, wherever it stands: before the host or among the parameters."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***@" + url.rsplit("@", 1)[1] if "@" in url else url
    rest, mark, query = rest.partition("?")
    if "@" in rest:
        rest = f"***@{rest.rsplit('@', 1)[1]}"
    pairs = [(name, "***" if name.lower() in SECRETS else value) for name, value in parse_qsl(query, True)]
    return f"{scheme}://{rest}{mark}{urlencode(pairs, safe='*/:')}"


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def parse_named(field: str, pairs: list[str]) -> dict[str, str]:
    """`["default=models/x"]` → `{"default": "models/x"}`. Raises UsageError."""
    flag, what = f"--{field.replace('_', '-')}", {"model": "PATH_OR_HUB_ID"}.get(field, "URL")
    named: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{flag} takes NAME={what}, not {pair!r}")
        if name in named:
            raise UsageError(f"{flag} names {name!r} twice")
        named[name] = value
    return named


def load(flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process. Raises UsageError naming the field and what it takes."""
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in FOREIGN:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in Settings.model_fields:
            raise UsageError(f"{variable} is no setting; `plaudit check` lists them")
        if name in ("model", "vllm_url"):
            values[name] = parse_named(name, _list(text))
        elif name in ("api_key", "admin_key", "dialects_off"):
            values[name] = _list(text)
        else:
            values[name] = text or None
    values.update({name: value for name, value in (flags or {}).items() if value is not None})
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors())
        raise UsageError(f"settings: {problems}") from None
