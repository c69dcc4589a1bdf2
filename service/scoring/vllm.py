"""The engine `vllm`: raw scores from a vLLM server over HTTP, and nothing of vLLM in this process.

The checkpoint is here too, for its template, tokenizer, revision, calibration and golden set; its weights are the
server's. What goes over is token ids, what comes back one logit each: `POST /pooling` with `use_activation: false`,
because vLLM's default for a head of one number is a sigmoid.

Which weights a server really has is asked of its scores. The golden set is scored before anything is served; after a
failure, or when the server has been silent for `PROOF_S` (no vLLM restarts in less), one golden row travels with the
next batch, and the batch counts only if that row comes out right. A checkpoint without a golden set is refused here.

A server that is down, overloaded or wrong raises `EngineUnavailable` at run time; one that never came up, or serves
something else, is refused at start. What vLLM says is the input's fault (400) raises `Rejected`, and the worker finds
out whose. One connection at a time: the worker's batches are vLLM's to schedule, and wait for nobody else here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from plaudit.errors import HostLacks, TooLong, UsageError
from service.scoring import checkpoint
from service.scoring.encoder import Encoded, Encoder, Overflow, Prompt
from service.scoring.engine import EngineUnavailable
from service.scoring.parity import GOLDEN_TOLERANCE, Parity, compare, read_golden
from service.scoring.prefix_cache import PromptCache
from service.scoring.vllm_server import Server, ServerDied
from service.settings import Settings

CONNECT_S, ANSWER_S = 5.0, 480.0  # less than the worker's patience
PROOF_S = 1.0
POLL_S = 0.5
STRANGE = {401, 403, 404, 405}


class Rejected(RuntimeError):
    """vLLM refuses the input (HTTP 400)."""


class _Stranger(EngineUnavailable):
    """What answers will not become a vLLM server that lets us in, however long one waits."""


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    index: int
    data: list[float]


class _Pooled(BaseModel):
    """`/pooling`'s answer, as far as it is read."""

    data: list[_Row]


class VllmEngine:
    """One checkpoint on one vLLM server. `server`: the child that serves it, None where somebody else runs it.

    `num_computed` counts every token that is sent: `/pooling` does not tell which of them the prefix cache had.
    """

    prefix_sharing_disabled_reason: str | None = None  # its prefix cache: whole blocks of a prompt are computed once

    def __init__(
        self,
        encoder: Encoder,
        folder: Path,
        client: httpx.Client,
        *,
        dtype: str,
        patience_s: float,
        server: Server | None = None,
    ) -> None:
        self.encoder = encoder
        self.spec = encoder.spec
        self.revision = checkpoint.revision_of(folder)
        self.architecture = encoder.spec.architecture
        self.dtype = dtype
        self.parameters = checkpoint.Tensors(folder).num_parameters
        self.max_length = encoder.spec.max_length
        self.engine = "vllm"
        self.num_computed = 0
        self.num_shared = 0
        self.prompts = PromptCache()  # vLLM has one of its own
        self.golden = read_golden(encoder, folder)
        if not self.golden:
            raise UsageError(f"{folder}: no golden set, and nothing else tells whether a vLLM server has these weights")
        self._canary = min(self.golden, key=lambda row: len(row.encoded.ids))
        self._client = client
        self._patience_s = patience_s
        self._server = server
        self._served = ""  # the model's name over there
        self._proven_at = -PROOF_S  # time.monotonic() of the last answer of a server that was proven before

    @classmethod
    def open(cls, name: str, path: str, settings: Settings) -> VllmEngine:
        """Connect to the server of this model, or start one; answers once it serves.

        Raises `HostLacks` where none comes up in time, `UsageError` where it serves another model, or shorter texts.
        """
        if settings.deterministic:
            raise UsageError("--deterministic is for the engine `transformers`: vLLM chooses its own batches")
        folder = checkpoint.locate(path)
        encoder = Encoder.load(folder)
        if encoder.spec.steps is not None:
            raise UsageError(f"{folder}: a process reward model is for the engine `transformers`")
        url, server = settings.vllm_url.get(name), None
        headers: dict[str, str] = {}
        transport: httpx.HTTPTransport | None = None
        if url is not None:
            if not url.startswith(("http://", "https://")):
                raise UsageError(f"--vllm-url {name}={url}: not an http URL")
            headers = {"authorization": f"Bearer {settings.vllm_api_key}"} if settings.vllm_api_key else {}
        elif settings.vllm_python is not None:
            server = Server(settings.vllm_python, folder, encoder.spec.max_length, settings)
            url, transport = "http://vllm", httpx.HTTPTransport(uds=str(server.socket))
        else:
            raise UsageError(f"--engine vllm needs --vllm-url {name}=URL, or --vllm-python to start a server for it")
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
            engine = cls(encoder, folder, client, dtype=settings.dtype, patience_s=settings.vllm_start_s, server=server)
            try:
                engine.wait()
            except EngineUnavailable as error:
                raise HostLacks(f"model {name!r}: {error}") from error
            undo.pop_all()
        return engine

    def wait(self) -> None:
        """Until the server serves, starting it where it is ours and not running.

        Raises `EngineUnavailable` where it does not come up in time, `UsageError` where it serves another model.
        """
        if self._server is not None:
            self._server.start()
        until = time.monotonic() + self._patience_s
        while True:
            try:
                if self._server is not None:
                    self._server.listening()
                self._ask("GET", "/health")
                break
            except (_Stranger, ServerDied):
                raise
            except EngineUnavailable as error:
                if time.monotonic() > until:
                    raise EngineUnavailable(f"no vLLM server within {self._patience_s:g} s: {error}") from error
                time.sleep(POLL_S)
        self._identify()

    def _identify(self) -> None:
        """What it says of itself: version, name and longest text of its model."""
        models = self._ask("GET", "/v1/models")
        try:
            cards = [card for card in models["data"] if card.get("parent") is None]
            (card,) = cards
            self._served, longest = str(card["id"]), card.get("max_model_len")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EngineUnavailable(f"{self._client.base_url} lists no one model of a vLLM server") from error
        if longest is not None and longest < self.max_length:
            raise UsageError(
                f"the vLLM server takes {longest} tokens and the checkpoint {self.max_length}; start it "
                f"with --max-model-len {self.max_length}"
            )
        said = self._ask("GET", "/version")
        self.engine = f"vllm {said.get('version', '')}".strip() if isinstance(said, dict) else "vllm"

    def encode_group(
        self, prompt: Prompt | None, completions: Sequence[str], on_overflow: Overflow = "error"
    ) -> list[Encoded | TooLong]:
        """Ids of every completion of one prompt. See `Encoder.encode_group`."""
        return self.encoder.encode_group(prompt, completions, on_overflow)

    def score(self, batch: Sequence[Encoded]) -> list[float]:
        """Raw logits, in the order of `batch`. Raises `EngineUnavailable`, and `Rejected` for what is the input's."""
        try:
            if self._server is not None and not self._server.alive:
                self.wait()
                self._proven_at = -PROOF_S
            proven = time.monotonic() - self._proven_at < PROOF_S
            scores = self._pool(batch) if proven else self._proven(batch)
        except EngineUnavailable:
            self._proven_at = -PROOF_S
            raise
        self._proven_at = time.monotonic()
        return scores

    def _proven(self, batch: Sequence[Encoded]) -> list[float]:
        """The batch beside a golden row, on a server that may have been away."""
        canary, *scores = self._pool([self._canary.encoded, *batch])
        off = abs(canary - self._canary.score)
        if not off <= GOLDEN_TOLERANCE[self.dtype]:
            raise EngineUnavailable(f"the vLLM server scores a golden row {off:.3g} off: it serves another model now")
        return scores

    def _pool(self, batch: Sequence[Encoded]) -> list[float]:
        ids = [one.ids for one in batch]
        answer = self._ask("POST", "/pooling", {"model": self._served, "input": ids, "use_activation": False})
        try:
            rows = sorted(_Pooled.model_validate(answer).data, key=lambda row: row.index)
        except ValidationError as error:
            raise EngineUnavailable(f"/pooling answers something else than vLLM's: {error.errors()[0]}") from error
        if [row.index for row in rows] != list(range(len(batch))) or any(len(row.data) != 1 for row in rows):
            raise EngineUnavailable("/pooling answers other than one number for each sequence: no reward model's head")
        self.num_computed += sum(map(len, ids))
        return [row.data[0] for row in rows]

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """One exchange: the answer's JSON, None where it has none."""
        if self._server is not None:
            self._server.check()
        try:
            response = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            told = str(error) or type(error).__name__
            raise EngineUnavailable(f"the vLLM server at {self._client.base_url} does not answer: {told}") from error
        if response.status_code == httpx.codes.BAD_REQUEST:
            raise Rejected(f"vLLM: {response.text[:300]}")
        if response.status_code != httpx.codes.OK:
            kind = _Stranger if response.status_code in STRANGE else EngineUnavailable
            raise kind(f"the vLLM server answers {path} with {response.status_code}: {response.text[:300]}")
        try:
            return response.json() if response.content else None
        except ValueError as error:
            raise EngineUnavailable(f"the vLLM server answers {path} with something that is not JSON") from error

    def check_golden(self) -> Parity:
        """Scores the golden set on the server and compares. Raises `EngineUnavailable`."""
        self._proven_at = time.monotonic()  # proof is what this is
        parity = compare(self, self.encoder, self.golden)
        if not parity.ok:
            self._proven_at = -PROOF_S
        return parity

    def pass_probability(self, score: float) -> float | None:
        """The shipped calibration's P(the program passes all its tests), or None where none is shipped."""
        return None if self.spec.calibration is None else self.spec.calibration.probability(score)

    def close(self) -> None:
        """End the connection, and the server where it is ours."""
        self._client.close()
        if self._server is not None:
            self._server.stop()
