"""The engine `vllm`: raw scores from a vLLM server over HTTP. Nothing of vLLM is imported into this process.

- The checkpoint must be on this host too, for its template, tokenizer, revision, calibration and golden set. Only the
  server loads its weights.
- Token ids go out, and one logit per sequence comes back: `POST /pooling` with `use_activation: false`, because vLLM's
  default for a head of one number is a sigmoid.
- The scores prove which weights the server has. The golden set is scored before anything is served. After a failure,
  or when the server has not answered for `PROOF_S` (no vLLM restarts in less), one golden row goes with the next
  batch, and the batch counts only if the score of that row is right. A checkpoint without a golden set is rejected.
- A server that is down, overloaded or wrong raises `EngineUnavailable` at run time. One that does not come up, or
  serves another model, is rejected at start. An input that vLLM rejects (400) raises `Rejected`; the worker then finds
  out which sequence it is (`fault_isolation.py`).
- There is one connection: the worker sends one batch at a time, which vLLM schedules.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from plaudit.errors import HostLacks, TooLong, UsageError
from service.jobs import Completion
from service.scoring import adapters, checkpoint
from service.scoring.encoder import Encoded, Encoder, Overflow, Prompt
from service.scoring.engine import EngineUnavailable
from service.scoring.parity import GOLDEN_TOLERANCE, Parity, compare, read_golden
from service.scoring.prefix_cache import PromptCache
from service.scoring.vllm_server import ServerExited, VllmServer
from service.settings import Settings

CONNECT_S, ANSWER_S = 5.0, 480.0  # less than `ScoreRunner.stuck_after_s`
PROOF_S = 1.0
POLL_S = 0.5
PERMANENT_ERRORS = {401, 403, 404, 405}


class Rejected(RuntimeError):
    """vLLM rejects the input (HTTP 400)."""


class _WrongServer(EngineUnavailable):
    """What answers is not a vLLM server that lets this client in, and waiting does not change that."""


class _PooledRow(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    index: int
    data: list[float]


class _Pooled(BaseModel):
    """The part of `/pooling`'s answer that is read."""

    data: list[_PooledRow]


class VllmEngine:
    """One checkpoint on one vLLM server. An `Engine`.

    `num_computed` counts every token that is sent: `/pooling` does not say which of them were in the prefix cache.
    """

    is_remote = True
    depends_on_group = False
    own_class_error: float | None = None
    good_label: int | None = None
    quantization: str | None = None
    prefix_sharing_disabled_reason: str | None = None  # vLLM's prefix cache shares whole blocks of prompts

    def __init__(
        self,
        encoder: Encoder,
        folder: Path,
        client: httpx.Client,
        *,
        dtype: str,
        start_timeout_s: float,
        server: VllmServer | None = None,
    ) -> None:
        self.encoder = encoder
        self.spec = encoder.spec
        self.revision = checkpoint.revision_of(folder)
        self.architecture = encoder.spec.architecture
        self.dtype = dtype
        self.parameters = checkpoint.Tensors(folder).num_parameters
        self.max_length = encoder.spec.max_length
        self.tokenizer_digest = encoder.tokenizer_digest
        self.engine = "vllm"
        self.num_computed = 0
        self.num_shared = 0
        self.prompts = PromptCache()  # unused: vLLM has a cache of its own
        self.golden = read_golden(encoder, folder)
        if not self.golden:
            raise UsageError(
                f"{folder}: no golden set, without which nothing proves that a vLLM server has these weights"
            )
        self._canary = min(self.golden, key=lambda row: len(row.encoded.ids))
        self._client = client
        self._start_timeout_s = start_timeout_s
        self._server = server
        self._served = ""  # the model's name on the server
        self._proven_at = -PROOF_S  # time.monotonic() of the last answer of a proven server

    @classmethod
    def open(cls, name: str, path: str, settings: Settings) -> VllmEngine:
        """Connect to the server of this model, or start one, and wait until it serves.

        Raises:
            HostLacks: no server comes up in time.
            UsageError: it serves another model or shorter texts, or the settings are invalid.
        """
        if settings.deterministic:
            raise UsageError("--deterministic needs --engine transformers: vLLM chooses its own batches")
        folder = adapters.locate(path)
        encoder = Encoder.load(folder)
        if encoder.spec.steps is not None:
            raise UsageError(f"{folder}: a process reward model needs --engine transformers")
        if (folder / checkpoint.ADAPTER).is_dir():
            raise UsageError(f"{path}: a base with an adapter needs --engine transformers, or merge it")
        if encoder.spec.gating is not None:
            raise UsageError(f"{folder}: a gating network needs --engine transformers")
        url, server = settings.vllm_url.get(name), None
        headers: dict[str, str] = {}
        transport: httpx.HTTPTransport | None = None
        if url is not None:
            if not url.startswith(("http://", "https://")):
                raise UsageError(f"--vllm-url {name}={url}: not an http:// or https:// URL")
            headers = {"authorization": f"Bearer {settings.vllm_api_key}"} if settings.vllm_api_key else {}
        elif (python := settings.vllm_python or _own_python()) is not None:
            server = VllmServer(python, folder, encoder.spec.max_length, settings)
            url, transport = "http://vllm", httpx.HTTPTransport(uds=str(server.socket))
        else:
            raise UsageError(
                f"--engine vllm needs --vllm-url {name}=URL, or a vLLM to start a server with: --vllm-python, or the "
                "package here (pip install 'plaudit-server[vllm]')"
            )
        limits = httpx.Limits(max_connections=1)
        client = httpx.Client(
            base_url=url,
            transport=transport,
            headers=headers,
            limits=limits,
            trust_env=False,
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
        )
        with contextlib.ExitStack() as undo:
            undo.callback(client.close)
            if server is not None:
                undo.callback(server.stop)
            engine = cls(
                encoder, folder, client, dtype=settings.dtype, start_timeout_s=settings.vllm_start_s, server=server
            )
            try:
                engine.wait()
            except EngineUnavailable as error:
                raise HostLacks(f"model {name!r}: {error}") from error
            undo.pop_all()
        return engine

    def wait(self) -> None:
        """Wait until the server serves; start it first if it is a child that does not run.

        Raises:
            EngineUnavailable: it does not come up in time.
            UsageError: it serves another model.
        """
        if self._server is not None:
            self._server.start()
        until = time.monotonic() + self._start_timeout_s
        while True:
            try:
                if self._server is not None:
                    self._server.check_listening()
                self._ask("GET", "/health")
                break
            except (_WrongServer, ServerExited):
                raise
            except EngineUnavailable as error:
                if time.monotonic() > until:
                    raise EngineUnavailable(f"no vLLM server within {self._start_timeout_s:g} s: {error}") from error
                time.sleep(POLL_S)
        self._identify()

    def _identify(self) -> None:
        """Read the server's version, and the name and longest text of its model."""
        models = self._ask("GET", "/v1/models")
        try:
            cards = [card for card in models["data"] if card.get("parent") is None]
            (card,) = cards
            self._served, longest = str(card["id"]), card.get("max_model_len")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EngineUnavailable(
                f"{self._client.base_url} does not list exactly one model, as a vLLM server does"
            ) from error
        if longest is not None and longest < self.max_length:
            raise UsageError(
                f"the vLLM server accepts {longest} tokens and the checkpoint {self.max_length}; start it "
                f"with --max-model-len {self.max_length}"
            )
        answer = self._ask("GET", "/version")
        self.engine = f"vllm {answer.get('version', '')}".strip() if isinstance(answer, dict) else "vllm"

    def encode_group(
        self, prompt: Prompt | None, completions: Sequence[Completion], on_overflow: Overflow = "error"
    ) -> list[Encoded | TooLong]:
        """Ids of every completion of one prompt. See `Encoder.encode_group`."""
        return self.encoder.encode_group(prompt, completions, on_overflow)

    def score(self, batch: Sequence[Encoded]) -> list[float]:
        """Raw logits, in the order of `batch`. Raises `EngineUnavailable`, and `Rejected` if vLLM rejects the input."""
        try:
            if self._server is not None and not self._server.alive:
                self.wait()
                self._proven_at = -PROOF_S
            proven = time.monotonic() - self._proven_at < PROOF_S
            scores = self._pool(batch) if proven else self._pool_with_canary(batch)
        except EngineUnavailable:
            self._proven_at = -PROOF_S
            raise
        self._proven_at = time.monotonic()
        return scores

    def _pool_with_canary(self, batch: Sequence[Encoded]) -> list[float]:
        """Score the batch together with a golden row: the server may have restarted."""
        canary, *scores = self._pool([self._canary.encoded, *batch])
        off = abs(canary - self._canary.score)
        if not off <= GOLDEN_TOLERANCE[self.dtype]:
            raise EngineUnavailable(f"the vLLM server scores a golden row {off:.3g} off: it now serves another model")
        return scores

    def _pool(self, batch: Sequence[Encoded]) -> list[float]:
        ids = [encoded.ids for encoded in batch]
        answer = self._ask("POST", "/pooling", {"model": self._served, "input": ids, "use_activation": False})
        try:
            rows = sorted(_Pooled.model_validate(answer).data, key=lambda row: row.index)
        except ValidationError as error:
            raise EngineUnavailable(f"/pooling does not answer as vLLM does: {error.errors()[0]}") from error
        if [row.index for row in rows] != list(range(len(batch))) or any(len(row.data) != 1 for row in rows):
            raise EngineUnavailable("/pooling does not answer one number per sequence: the model has no reward head")
        self.num_computed += sum(map(len, ids))
        return [row.data[0] + self.encoder.surface_score(encoded) for row, encoded in zip(rows, batch, strict=True)]

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """One exchange: the answer's JSON, None where it has none."""
        if self._server is not None:
            self._server.check()
        try:
            response = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise EngineUnavailable(f"the vLLM server at {self._client.base_url} does not answer: {reason}") from error
        if response.status_code == httpx.codes.BAD_REQUEST:
            raise Rejected(f"vLLM: {response.text[:300]}")
        if response.status_code != httpx.codes.OK:
            kind = _WrongServer if response.status_code in PERMANENT_ERRORS else EngineUnavailable
            raise kind(f"the vLLM server answers {path} with {response.status_code}: {response.text[:300]}")
        try:
            return response.json() if response.content else None
        except ValueError as error:
            raise EngineUnavailable(f"the vLLM server does not answer {path} with JSON") from error

    def check_golden(self) -> Parity:
        """Score the golden set on the server and compare. Raises `EngineUnavailable`."""
        self._proven_at = time.monotonic()  # this is the proof, so no canary is needed
        parity = compare(self, self.encoder, self.golden)
        if not parity.ok:
            self._proven_at = -PROOF_S
        return parity

    def pass_probability(self, score: float) -> float | None:
        """The calibrated P(the program passes all its tests), or None for a checkpoint without a calibration."""
        return None if self.spec.calibration is None else self.spec.calibration.probability(score)

    def close(self) -> None:
        """Close the connection, and stop the server if it is a child."""
        self._client.close()
        if self._server is not None:
            self._server.stop()


def _own_python() -> Path | None:
    """This process's interpreter, if its environment has vLLM."""
    return None if importlib.util.find_spec("vllm") is None else Path(sys.executable)
