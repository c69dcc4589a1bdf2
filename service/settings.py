"""Every setting of every process: one frozen value, made once at the edge.

- A setting is declared in one place: type, default, range, description, and the group of its flag. The flags, `--help`
  and the table in docs/operations.md are made from that.
- Flags win over `PLAUDIT_*` variables, and those win over the defaults.
- An unknown `PLAUDIT_` variable is an error, so that a typo cannot pass for a setting.
- Nothing else in the product reads the environment for a setting.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from plaudit.errors import UsageError
from plaudit.schemas import MAX_COMPLETIONS, MAX_ITEMS, MAX_TESTS

if TYPE_CHECKING:
    from sandbox.vm_image import VmConfig

PREFIX = "PLAUDIT_"
# Read by tests, examples and training recipes, not by the service; allowed to be set beside it.
FOREIGN = frozenset({"PLAUDIT_DATA", "PLAUDIT_URL"})

LISTS = ("api_key", "admin_key", "dialects_off", "cors_origin", "forwarded_allow_ips")  # in a variable: by commas
PAIRS = ("model", "vllm_url")  # the same, of NAME=VALUE
URL_SECRETS = frozenset({"password", "sentinel_password"})  # parameters of a Redis URL
PACKAGE_ROOT = Path(__file__).resolve().parent.parent


def setting(
    default: Any,
    description: str,
    *,
    group: str = "",
    metavar: str = "N",
    secret: bool = False,
    repeatable: bool = False,
    **bounds: Any,
) -> Any:
    """Declare one setting.

    Args:
        default: Its value if neither a flag nor a variable sets it.
        description: What it does, with its unit if the name has none. Shown in `--help` and docs/operations.md.
        group: The group of flags it belongs to. Empty: it has a variable only, no flag.
        metavar: What `--help` shows for its value.
        secret: Whether `plaudit check` and error messages must hide its value.
        repeatable: Whether its flag may be given several times; the variable separates the values by spaces.
        bounds: Constraints as pydantic's `Field` takes them: `ge`, `gt`, `le`, `pattern`.
    """
    extra = {"group": group, "metavar": metavar, "secret": secret, "repeatable": repeatable}
    return Field(default, description=description, json_schema_extra=cast(Any, extra), **bounds)


def bundled_checkpoint() -> Path:
    """The folder of plaudit-mini: inside the package where a wheel was installed, beside it in a clone."""
    inside = Path(__file__).resolve().parent / "models" / "plaudit-mini"
    return inside if inside.is_dir() else PACKAGE_ROOT / "models" / "plaudit-mini"


class Settings(BaseModel):
    """Limits are `max_*`, counts are nouns in the plural, and units are in the names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = setting("127.0.0.1", "address to listen on", group="address", metavar="ADDRESS")
    port: int = setting(8000, "port to listen on; 0 picks a free one", group="address", metavar="PORT", ge=0, le=65535)
    uds: Path | None = setting(
        None,
        "Unix socket to listen on in place of host and port; who may connect is up to its folder's permissions",
        group="address",
        metavar="PATH",
    )
    root_path: str = setting(
        "",
        "path under which a proxy publishes the API, such as /plaudit, whether or not it removes it",
        group="address",
        metavar="PATH",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
    )
    cors_origin: list[str] = setting(
        [],
        "origins whose pages may call the API from a browser, such as https://example.org; *: all",
        group="address",
        metavar="ORIGIN",
    )
    forwarded_allow_ips: list[str] = setting(
        ["127.0.0.1", "::1"],
        "addresses and networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed; *: all",
        group="address",
        metavar="ADDRESS",
    )
    ssl_certfile: Path | None = setting(
        None, "certificate chain for TLS, in PEM; needs a key", group="address", metavar="FILE"
    )
    ssl_keyfile: Path | None = setting(None, "private key of the certificate, in PEM", group="address", metavar="FILE")
    ssl_keyfile_password: str | None = setting(None, "password of that key", metavar="PASSWORD", secret=True)
    apis: int = setting(
        1, "number of API processes that `plaudit up` starts on the port", group="processes", ge=1, le=64
    )

    redis_url: str | None = setting(
        None,
        "redis://, rediss://, unix:// or sentinel:// of a Redis 7 or Valkey; empty: `plaudit up` starts its own "
        "Valkey. Over several (in the variable: separated by spaces) the work is spread",
        group="broker",
        metavar="URL",
        repeatable=True,
    )
    shards: int = setting(
        1, "number of Valkeys that `plaudit up` starts if no Redis is given", group="processes", ge=1, le=64
    )
    serve_shard: str | None = setting(
        None,
        "name of the one Redis of several that a worker serves: what stands behind the # of its URL, or else its URL "
        "without credentials and parameters; empty: all of them, dealt out if there are enough workers",
        group="shard",
        metavar="NAME",
    )
    redis_replicas: int = setting(
        0,
        "how many replicas of Redis must have an asynchronous request, a cancellation or a stored test suite before it "
        "is acknowledged; what fewer of them have after a second is 503",
        group="broker",
        metavar="COUNT",
        ge=0,
        le=16,
    )
    redis_wait_s: float = setting(
        30.0, "how long to wait at the start for a Redis that does not answer", group="broker", metavar="SECONDS", ge=0
    )
    namespace: str = setting(
        "plaudit", "prefix of every Redis key", group="broker", metavar="NAME", pattern=r"^[A-Za-z0-9_.-]+$"
    )
    state_dir: Path | None = setting(
        None,
        "folder where `plaudit up` keeps its broker's append-only file; empty: a temporary folder, removed at the end",
        group="state",
        metavar="FOLDER",
    )

    api_key: list[str] = setting(
        [], "keys that may call the API; none: no key is asked, loopback only", group="keys", metavar="KEY", secret=True
    )
    admin_key: list[str] = setting([], "keys that may also call admin routes", group="keys", metavar="KEY", secret=True)
    accept_no_auth: bool = setting(False, "allow listening beyond loopback without keys", group="keys")

    # Limits of one request. A request beyond them is rejected with 413 or 422.
    max_body_bytes: int = setting(64 * 1024 * 1024, "size of a request's body")
    max_items: int = setting(256, "items per request", le=MAX_ITEMS)
    max_completions: int = setting(1024, "completions or programs per item", le=MAX_COMPLETIONS)
    max_total_completions: int = setting(8192, "completions or programs per request")
    max_code_bytes: int = setting(256 * 1024, "size of one program, or of one completion that is executed")
    max_text_bytes: int = setting(2 * 1024 * 1024, "size of one prompt or completion", ge=1)
    max_suite_bytes: int = setting(32 * 1024 * 1024, "size of one item's tests", ge=1)
    max_tests: int = setting(1000, "tests per item", le=MAX_TESTS)
    max_stdin_bytes: int = setting(16 * 1024 * 1024, "size of one test's standard input")
    max_cpu_s: float = setting(60.0, "largest CPU time limit that a request may set for a program")
    max_wall_s: float = setting(180.0, "largest wall-clock limit that a request may set for a program")
    max_memory_mb: int = setting(4096, "largest memory limit that a request may set for a program")
    max_output_kb: int = setting(16 * 1024, "largest output limit that a request may set for a program")
    max_processes: int = setting(256, "largest limit of processes that a request may set for a program")

    # Limits of a connection. One beyond them is closed.
    header_timeout_s: float = setting(10.0, "time for a client to send the head of its request", gt=0)
    idle_timeout_s: float = setting(
        75.0, "how long a connection may be idle between requests, pause in a body, or leave an answer unread", gt=0
    )

    # Limits of the queues. A request that does not fit is rejected with 429.
    max_queued_score: int = setting(4096, "groups waiting or running")
    max_queued_score_tokens: int = setting(16_000_000, "their tokens, as estimated on arrival")
    max_queued_execute: int = setting(16384, "programs waiting or running")
    max_queued_execute_cpu_s: float = setting(400_000.0, "their CPU seconds, if each used up its own limit")

    default_deadline_ms: int = setting(120_000, "deadline of a request that sets none")
    max_deadline_ms: int = setting(3_600_000, "largest deadline that a request may set")
    async_deadline_ms: int = setting(3_600_000, "deadline of a `Prefer: respond-async` request that sets none")
    keep_results_s: int = setting(3600, "how long answers of idempotent and asynchronous requests are kept")
    cache_s: int = setting(3600, "how long finished deterministic results are kept")
    keep_replays_s: int = setting(
        3600, "how long the inputs that reproduce a verdict are kept, by request id; 0: not kept", ge=0
    )
    max_replay_bytes: int = setting(
        128 * 1024 * 1024,
        "total size of those inputs, compressed, and at most 12.5 % of `max_redis_bytes`; beyond it the oldest are "
        "dropped",
        ge=1,
    )
    max_redis_bytes: int | None = setting(
        None, "memory that the budgets in Redis are shares of; empty: Redis' maxmemory, or 1 GiB if it has none", ge=1
    )
    max_result_bytes: int | None = setting(
        None, "memory for finished results in Redis; empty: 15 % of `max_redis_bytes`", ge=0
    )
    max_score_bytes: int | None = setting(
        None, "memory for remembered scores in Redis; empty: 15 % of `max_redis_bytes`", ge=0
    )
    max_answer_bytes: int | None = setting(
        None,
        "memory for idempotent and asynchronous requests in Redis, bodies included; empty: 25 % of `max_redis_bytes`. "
        "What does not fit is rejected with 429",
        ge=0,
    )
    max_testset_bytes: int | None = setting(
        None,
        "memory for test suites in Redis; empty: 15 % of `max_redis_bytes`. What does not fit is rejected with 429",
        ge=0,
    )
    lease_s: float = setting(6.0, "a job is given to another worker after its worker was silent for so long", gt=0)
    heartbeat_s: float = setting(1.5, "interval at which a worker renews its leases", gt=0)
    max_deliveries: int = setting(3, "deliveries of a job before it counts as poisoned", ge=1)
    drain_s: float = setting(20.0, "time to finish running work after SIGTERM", group="drain", metavar="SECONDS", gt=0)

    scorers: int = setting(1, "number of scoring processes", group="scoring", ge=0, le=64)
    model: dict[str, str] = setting(
        {},
        "name and checkpoint of each served model: a folder, a hub id, or a base and an adapter of it as BASE+ADAPTER; "
        "none: plaudit-mini",
        group="scoring",
        metavar="NAME=PATH_OR_HUB_ID",
    )
    engine: Literal["transformers", "vllm"] = setting(
        "transformers",
        "what computes scores: transformers or vllm (docs/engines.md)",
        group="scoring",
        metavar="ENGINE",
    )
    dtype: Literal["float32", "bfloat16"] = setting(
        "float32", "arithmetic of the models: float32 or bfloat16", group="scoring", metavar="TYPE"
    )
    device: str = setting(
        "auto",
        "where scores are computed: cpu, cuda, cuda:1, ...; auto: the first GPU, or the CPU if there is none; split: a "
        "model's layers over all GPUs",
        group="scoring",
        metavar="DEVICE",
        pattern=r"^(auto|cpu|split|cuda(:\d+)?)$",
    )
    share_bases: bool = setting(
        False,
        "adapters of one base (BASE+ADAPTER) share its weights in a scoring process, in place of a merged copy each: "
        "less memory, but slower",
        group="scoring",
    )
    deterministic: bool = setting(
        False,
        "compute one sequence at a time: the same bits whatever else is in the batch, but slower",
        group="scoring",
    )
    max_batch_tokens: int = setting(16384, "largest number of tokens computed in one batch", group="scoring", ge=1)
    max_prompt_cache_bytes: int = setting(
        256 * 1024 * 1024,
        "size of the cache for keys and values of prompts, per revision of a model; 0: no cache",
        group="scoring",
        ge=0,
    )
    torch_threads: int = setting(1, "CPU threads per scoring process", group="scoring", ge=1)
    vllm_url: dict[str, str] = setting(
        {}, "address of the vLLM server of each model", group="scoring", metavar="NAME=URL"
    )
    vllm_python: Path | None = setting(
        None,
        "Python interpreter of an environment that has vLLM: the worker starts and stops a server for each model "
        "without a URL; empty: the worker's own, if it has vLLM",
        group="scoring",
        metavar="PATH",
    )
    vllm_args: str = setting(
        "", "further arguments for servers that the worker starts, split as by a shell", group="scoring", metavar="ARGS"
    )
    vllm_api_key: str | None = setting(
        None, "key of the vLLM servers at the URLs", group="scoring", metavar="KEY", secret=True
    )
    vllm_start_s: float = setting(
        300.0, "how long a vLLM server may take to start", group="scoring", metavar="SECONDS", gt=0
    )

    executors: int | None = setting(
        None, "number of executing processes; empty: one per CPU core", group="executing", ge=0, le=1024
    )
    isolation_accept: Literal["vm", "strong", "userns", "landlock", "none"] = setting(
        "strong",
        "lowest isolation level that executors accept: vm, strong, userns, landlock or none (docs/sandbox.md). "
        "Executors with less do not start; none is for loopback only",
        group="executing",
        metavar="LEVEL",
    )
    vm_image: Path | None = setting(
        None,
        "folder that `plaudit vm build` made: each executor runs its programs in a virtual machine of this image, or "
        "does not start; empty: no virtual machines",
        group="executing",
        metavar="FOLDER",
    )
    vm_memory_mb: int = setting(
        2048, "memory of an executor's virtual machine", group="executing", metavar="MB", ge=1024, le=65536
    )
    vm_max_jobs: int = setting(
        1000, "programs after which a virtual machine is replaced by a fresh one", group="executing", metavar="N", ge=1
    )
    vm_emulation: bool = setting(
        False,
        "run virtual machines without /dev/kvm, by QEMU's software emulation: for tests, many times slower",
        group="executing",
    )
    executor_memory_mb: int | None = setting(
        2048,
        "memory of an executor's own process, programs not counted. A program whose answer needs more is "
        "`invalid_result`; anything else that needs more is a retryable `infra_error`",
        ge=256,
    )

    dialects_off: list[str] = setting([], "compatibility endpoints that are switched off, by name (docs/dialects.md)")
    fallback_reward: float = setting(
        0.0, "reward, sent with `reward_ok` 0, for trainers that would crash without a number"
    )

    candidates_dir: Path | None = setting(
        None,
        "folder for the log of scored and executed completions, texts included (docs/operations.md); empty: no log",
    )
    max_candidates_bytes: int = setting(
        1024 * 1024 * 1024, "size of that log per API process; beyond it nothing more is logged", ge=1
    )

    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "lowest level that is logged: debug, info, warning or error", group="logging", metavar="LEVEL"
    )
    log_format: Literal["auto", "text", "json"] = setting(
        "auto",
        "how log lines are written: text for people, json for machines; auto: text on a terminal, json elsewhere",
        group="logging",
        metavar="FORMAT",
    )
    log_payloads: bool = setting(False, "log prompts, completions and programs", group="logging")
    metrics_port: int = setting(
        0, "port of a worker's own /metrics; 0: none", group="metrics", metavar="PORT", ge=0, le=65535
    )

    @field_validator("redis_url", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        """Several URLs are one text, separated by spaces: a comma may be part of a URL."""
        return " ".join(value) if isinstance(value, list) else value

    @field_validator(
        "api_key", "admin_key", "dialects_off", "model", "vllm_url", "cors_origin", "forwarded_allow_ips", mode="before"
    )
    @classmethod
    def _split(cls, value: Any, info: ValidationInfo) -> Any:
        """A variable's text at its commas; then, for models and their servers, each NAME=VALUE at its first `=`."""
        name = str(info.field_name)
        words = [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value or []
        return _pairs(name, words) if name in PAIRS and isinstance(words, list) else words

    @field_validator("cors_origin")
    @classmethod
    def _origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            parts = urlsplit(origin)
            if origin != "*" and (
                parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != origin
            ):
                raise PydanticCustomError(
                    "origin", "expected scheme://host or scheme://host:port, without a path, or *"
                )
        return origins

    @property
    def redis_urls(self) -> list[str]:
        """The URLs of `redis_url`."""
        return (self.redis_url or "").split()

    @property
    def models(self) -> dict[str, str]:
        """The served models by name: `model`, or the checkpoint that ships with plaudit."""
        return self.model or {"default": str(bundled_checkpoint())}

    def vm_config(self) -> VmConfig | None:
        """How executors start virtual machines; None: they do not."""
        from sandbox.vm_image import VmConfig

        if self.vm_image is None:
            return None
        return VmConfig(
            self.vm_image, self.vm_memory_mb, self.vm_emulation, self.vm_max_jobs, self.max_deadline_ms / 1000
        )

    @property
    def loopback(self) -> bool:
        """Whether the API listens on this machine alone. Decided by the address as written; no name is resolved."""
        return self.uds is not None or is_loopback(self.host)

    def require_loopback_without_isolation(self) -> None:
        """Level `none` is for one's own programs on one's own machine. Raises UsageError beyond it."""
        if self.isolation_accept != "none":
            return
        rule = "--isolation-accept none runs programs without isolation and is for this machine only"
        if not self.loopback:
            raise UsageError(f"{rule}, but --host {self.host} is open to others: bind to 127.0.0.1, or accept landlock")
        for url in map(urlsplit, self.redis_urls):
            if url.scheme != "unix" and not is_loopback(url.hostname or "localhost"):
                raise UsageError(
                    f"{rule}, but the Redis of --redis-url is on {url.hostname}: use one on 127.0.0.1, or accept "
                    "landlock"
                )

    def public(self) -> dict[str, Any]:
        """The settings in force with secrets hidden, for `plaudit check` and the logs."""
        shown = self.model_dump(mode="json")
        for name, value in shown.items():
            if metadata(name)["secret"] and value:
                shown[name] = ["***"] * len(value) if isinstance(value, list) else "***"
        if self.redis_url:
            shown["redis_url"] = " ".join(map(masked, self.redis_urls))
        return shown


def metadata(name: str) -> Mapping[str, Any]:
    """The `group`, `metavar` and `secret` of a setting."""
    return cast(Mapping[str, Any], Settings.model_fields[name].json_schema_extra)


def _pairs(setting_name: str, words: list[str]) -> dict[str, str]:
    """`["default=models/x"]` → `{"default": "models/x"}`. Raises PydanticCustomError."""
    pairs: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if not (name and value):
            raise PydanticCustomError("pair", "expected {form}", {"form": metadata(setting_name)["metavar"]})
        if name in pairs:
            raise PydanticCustomError("twice", "expected each name once")
        pairs[name] = value
    return pairs


def masked(url: str) -> str:
    """The URL without its secrets: those before the host, and those among the parameters."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***@" + url.rsplit("@", 1)[1] if "@" in url else url
    rest, mark, query = rest.partition("?")
    if "@" in rest:
        rest = f"***@{rest.rsplit('@', 1)[1]}"
    pairs = [(name, "***" if name.lower() in URL_SECRETS else value) for name, value in parse_qsl(query, True)]
    return f"{scheme}://{rest}{mark}{urlencode(pairs, safe='*/:')}"


def is_loopback(host: str) -> bool:
    """Whether an address as written is this machine's loopback."""
    return host in ("localhost", "::1") or host.startswith("127.")


def load(flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process.

    Args:
        flags: Values by the setting's name, as text or typed; None means that the flag was not given.
        environ: The environment; `os.environ` if None.

    Raises:
        UsageError: An unknown variable, or a value out of range; the message names the flag or variable.
    """
    values: dict[str, Any] = {}
    for variable, text in (os.environ if environ is None else environ).items():
        if variable.startswith(PREFIX) and variable not in FOREIGN:
            name = variable.removeprefix(PREFIX).lower()
            if name not in Settings.model_fields:
                raise UsageError(_unknown(variable))
            values[name] = text or None
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return Settings.model_validate(values | given)
    except ValidationError as error:
        raise UsageError("; ".join(_describe(problem, given) for problem in error.errors())) from None


def _unknown(variable: str) -> str:
    """The message for a variable that is not a setting."""
    import difflib  # loaded only where the process ends with this message

    nearest = difflib.get_close_matches(variable.removeprefix(PREFIX).lower(), Settings.model_fields, 1)
    meant = f"; did you mean {PREFIX}{nearest[0].upper()}?" if nearest else ";"
    return f"{variable} is not a setting{meant} `plaudit check` lists all settings"


def _describe(problem: ErrorDetails, flags: Mapping[str, Any]) -> str:
    """One invalid value: the flag or variable that brought it, what it takes, and the value itself unless secret."""
    name = str(problem["loc"][0])
    source = f"--{name.replace('_', '-')}" if name in flags else f"{PREFIX}{name.upper()}"
    secret = name in Settings.model_fields and metadata(name)["secret"]
    return f"{source}: {problem['msg']}, not {'***' if secret else repr(problem['input'])}"
