"""A small causal model of random weights behind an OpenAI-compatible door: a real HTTP server on a port of its own.

`faults` are what the next requests meet instead of the model: a status with headers, or "drop" (the connection ends
without an answer). `answer` replaces the model where a test needs texts that mean something.
"""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from support.checkpoints import write_tokenizer
from training.generation.sources.base import CompletionRequest
from training.generation.sources.local import LocalSource
from training.pipeline.config import SourceConfig

Fault = tuple[int, dict[str, str]] | str
Answer = Callable[[dict[str, Any]], list[str]]


def causal_model(folder: Path) -> Path:
    """A tiny language model of random weights, with its tokenizer and chat template."""
    write_tokenizer(folder)
    torch.manual_seed(11)
    config = Qwen2Config(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        eos_token_id=2,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


class OpenAIServer:
    """A context manager. `requests` is every body that came, `most` how many were in the house at once."""

    def __init__(
        self,
        model: Path | None = None,
        *,
        answer: Answer | None = None,
        max_n: int = 99,
        faults: tuple[Fault, ...] = (),
        key: str | None = None,
        least_s: float = 0.0,
    ) -> None:
        self.answer, self.max_n, self.faults, self.key, self.least_s = answer, max_n, list(faults), key, least_s
        self.requests: list[dict[str, Any]] = []
        self.tokens = 0
        self._causal: Any = None
        self.most = self._inside = 0
        self._lock = threading.Lock()
        self._folder = model
        self._model = LocalSource(SourceConfig(kind="hf", path=str(model))).__enter__() if model else None
        app = FastAPI()
        app.add_api_route("/v1/chat/completions", self._serve, methods=["POST"], response_model=None)
        app.add_api_route("/v1/completions", self._serve, methods=["POST"], response_model=None)
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._sock.getsockname()[1]}/v1"
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", access_log=False))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._sock]}, daemon=True)

    async def _serve(self, request: Request) -> Response:
        import asyncio

        body = await request.json()
        return await asyncio.to_thread(self._respond, request, body)

    def _respond(self, request: Request, body: dict[str, Any]) -> Response:
        with self._lock:
            self.requests.append(body)
            self._inside += 1
            self.most = max(self.most, self._inside)
            fault = self.faults.pop(0) if self.faults else None
        try:
            if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
                return JSONResponse({"error": {"message": "no such key"}}, 401)
            if fault == "drop":
                request.scope["extensions"] = {}
                return _Dropped()
            if fault is not None:
                assert isinstance(fault, tuple)
                return JSONResponse({"error": {"message": "by the test"}}, fault[0], headers=fault[1])
            time.sleep(self.least_s)
            return JSONResponse(self._completion(body))
        finally:
            with self._lock:
                self._inside -= 1

    def _distribution(self, body: dict[str, Any]) -> dict[str, Any]:
        """One token, with what the model gives the likeliest ones: the answer to a request for `logprobs`."""
        assert self._folder is not None
        with self._lock:
            if self._causal is None:
                tokenizer = AutoTokenizer.from_pretrained(self._folder)
                self._causal = tokenizer, AutoModelForCausalLM.from_pretrained(self._folder).eval()
            tokenizer, model = self._causal
            text = tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                logprobs = model(input_ids=ids).logits[0, -1].log_softmax(-1)
        values, tokens = logprobs.topk(body["top_logprobs"])
        top = [
            {"token": tokenizer.decode([token]), "logprob": value, "bytes": None}
            for token, value in zip(tokens.tolist(), values.tolist(), strict=True)
        ]
        usage = {"prompt_tokens": ids.shape[1], "completion_tokens": 1, "total_tokens": ids.shape[1] + 1}
        message = {"role": "assistant", "content": top[0]["token"]}
        content = [top[0] | {"top_logprobs": top}]
        choice = {"index": 0, "message": message, "finish_reason": "length", "logprobs": {"content": content}}
        return {"id": "c", "choices": [choice], "usage": usage}

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("logprobs") and self.answer is None:
            return self._distribution(body)
        n = min(body.get("n", 1), self.max_n)
        prompt_tokens = tokens = 0
        if self.answer is not None:
            texts, endings = self.answer(body)[:n], ["stop"] * n
            prompt_tokens, tokens = len(str(body.get("messages") or body["prompt"])), sum(map(len, texts))
        else:
            assert self._model is not None
            prompt: Any = body.get("prompt")
            if prompt is None:
                prompt = tuple((m["role"], m["content"]) for m in body["messages"])
            with self._lock:
                self._model.settings = dataclasses.replace(
                    self._model.settings,
                    temperature=body["temperature"],
                    top_p=body["top_p"],
                    max_tokens=body["max_tokens"],
                    stop=tuple(body.get("stop", ())),
                )
                (reply,) = self._model.replies([CompletionRequest("", prompt, n, body["seed"])])
            texts, endings = list(reply.texts), list(reply.endings)
            prompt_tokens, tokens = reply.prompt_tokens, reply.completion_tokens
        self.tokens += tokens
        choices = [
            {"index": at, "finish_reason": ending}
            | ({"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text})
            for at, (text, ending) in enumerate(zip(texts, endings, strict=False))
        ]
        return {"id": "c", "choices": choices, "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": tokens}}

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._sock.close()


class _Dropped(Response):
    """Promises a body and ends the connection before it has come."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
