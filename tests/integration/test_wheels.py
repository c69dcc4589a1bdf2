"""Both wheels, built, installed into environments of their own outside the repository, and used there.

- The client's environment is empty but for the wheel and what it requires, under the tested pins.
- The server's environment borrows the installed libraries (torch is large) but none of the repository's code.
- Every command runs in a folder with packages `service`, `sandbox` and `training` that raise when they are imported.
"""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.pages import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
NEIGHBOURS = ("service", "sandbox", "training", "plaudit_mini", "models")
READY_S = 120.0
IMPORT_S = 0.3
ITEM = {
    "prompt": "Return the sum of a and b.",
    "completions": [
        "```python\ndef add(a, b):\n    return a - b\n```",
        "```python\ndef add(a, b):\n    return a + b\n```",
    ],
    "language": "python",
    "extract": "last_fence",
    "tests": {"kind": "assert", "asserts": ["assert add(1, 2) == 3", "assert add(2, 2) == 4"]},
}


class Environment:
    """A virtual environment with a wheel in it, and a working directory full of packages that must not be imported."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cwd = folder, folder / "cwd"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        for name in NEIGHBOURS:
            (self.cwd / name).mkdir(parents=True)
            (self.cwd / name / "__init__.py").write_text(f"raise RuntimeError('the {name} of the working directory')\n")

    @property
    def site_packages(self) -> Path:
        return next((self.folder / "venv" / "lib").glob("python3*/site-packages"))

    def install(self, *words: str | Path) -> None:
        """`pip install`, by the pip of the tests' environment."""
        argv = [*PIP, "--python", self.folder / "venv" / "bin" / "python", "install", *words]
        subprocess.run(argv, check=True, cwd=self.folder)

    @staticmethod
    def environ(**more: str) -> dict[str, str]:
        """Without what a shell may have set for the repository's own code."""
        ours = ("PYTHONPATH", "PYTHONSAFEPATH", "PYTHONHOME")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PLAUDIT_")}
        return {name: value for name, value in kept.items() if name not in ours} | more

    def argv(self, command: str, *words: str | Path) -> list[str]:
        return [str(self.folder / "venv" / "bin" / command), *map(str, words)]

    def run(self, command: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """A command of the environment, in the folder of neighbours."""
        argv = self.argv(command, *words)
        return subprocess.run(argv, cwd=self.cwd, env=self.environ(), capture_output=True, text=True, timeout=120)

    def python(self, code: str) -> str:
        """What a program prints under this environment's Python. `-P`: `-c` alone puts the working directory first."""
        done = self.run("python", "-P", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Distribution -> its wheel."""
    folder = tmp_path_factory.mktemp("wheels")
    for source in (ROOT, ROOT / "client"):
        subprocess.run([*PIP, "wheel", "--no-deps", "--wheel-dir", folder, source], check=True, cwd=folder)
    built = {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}
    assert sorted(built) == ["plaudit", "plaudit_server"]
    return built


@pytest.fixture(scope="module")
def client(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("client"))
    environment.install("--constraint", ROOT / "constraints.txt", wheels["plaudit"])
    return environment


@pytest.fixture(scope="module")
def server(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("server"))
    # A folder that a .pth file names is searched for packages, but its own .pth files are not read: no editable install
    (environment.site_packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment.install("--no-deps", "--ignore-installed", *wheels.values())
    return environment


@pytest.fixture(scope="module")
def url(server: Environment) -> Iterator[str]:
    """`plaudit up` of the wheel, with its own checkpoint and its own broker."""
    argv = server.argv("plaudit", "up", "--port", "0", "--executors", "1", "--isolation-accept", "userns")
    log = server.folder / "up.log"
    environ = server.environ(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    with log.open("wb") as stderr:
        service = subprocess.Popen(argv, cwd=server.cwd, env=environ, stdout=subprocess.PIPE, stderr=stderr)
    assert service.stdout is not None
    try:
        ready, _, _ = select.select([service.stdout], [], [], READY_S)
        line = service.stdout.readline() if ready else b""
        assert line, log.read_text()[-4000:]
        yield json.loads(line)["url"]
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(60)
        service.stdout.close()


def distributions(environment: Environment) -> set[str]:
    code = "from importlib.metadata import distributions as d; print(*{x.metadata['Name'].lower() for x in d()})"
    return set(environment.python(code).split())


def test_the_clients_environment_holds_httpx_pydantic_and_what_they_need(client: Environment) -> None:
    needed = {"httpx", "httpcore", "h11", "anyio", "idna", "certifi", "sniffio"}
    needed |= {"pydantic", "pydantic-core", "pydantic_core", "typing-inspection", "typing_extensions"}
    needed |= {"typing-extensions", "annotated-types", "truststore", "httpcore2"}
    assert distributions(client) - needed == {"plaudit"}


@pytest.mark.parametrize("name", ["client", "server"])
def test_import_plaudit_is_quick_and_loads_nothing_heavy(name: str, request: pytest.FixtureRequest) -> None:
    environment: Environment = request.getfixturevalue(name)
    code = (
        "import sys, time; before = time.process_time(); import plaudit; "
        "print(time.process_time() - before, plaudit.__file__, *sys.modules)"
    )
    outputs = [environment.python(code).split() for _ in range(5)]
    assert statistics.median(float(output[0]) for output in outputs) < IMPORT_S
    assert Path(outputs[0][1]).is_relative_to(environment.site_packages)
    assert not {"torch", "fastapi", "pydantic", "httpx", "service", "training"} & set(outputs[0][2:])


@pytest.mark.parametrize("name", ["client", "server"])
def test_every_public_name_and_integration_can_be_imported(name: str, request: pytest.FixtureRequest) -> None:
    environment: Environment = request.getfixturevalue(name)
    environment.python(
        "import plaudit; [getattr(plaudit, name) for name in plaudit.__all__]; "
        "from plaudit.integrations import areal, inspect_ai, openrlhf, skyrl, slime, trl, verifiers, verl; import sys; "
        "assert not {'torch', 'trl', 'verl', 'fastapi', 'service', 'training'} & set(sys.modules)"
    )


def test_without_the_server_its_commands_say_what_to_install(client: Environment) -> None:
    done = client.run("plaudit", "up")
    assert (done.returncode, done.stdout) == (3, "")
    assert "pip install 'plaudit-server" in done.stderr
    assert "Traceback" not in done.stderr
    text = client.run("plaudit", "--help").stdout
    assert "rank" in text
    assert "start everything" not in text


@pytest.mark.parametrize("command", [("plaudit", "--help"), ("plaudit", "up", "--help"), ("plaudit-train", "--help")])
def test_help_of_the_server_ignores_packages_of_the_working_directory(
    command: tuple[str, ...], server: Environment
) -> None:
    done = server.run(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage" in done.stdout.lower()


@pytest.mark.parametrize("name", ["client", "server"])
def test_the_command_line_ranks_two_programs(name: str, url: str, request: pytest.FixtureRequest) -> None:
    environment: Environment = request.getfixturevalue(name)
    (environment.cwd / "items.jsonl").write_text(json.dumps(ITEM) + "\n")
    done = environment.run("plaudit", "rank", "items.jsonl", "--url", url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["order"] == [1, 0]
    scored = {"prompt": ITEM["prompt"], "completions": ITEM["completions"]}
    (environment.cwd / "scores.jsonl").write_text(json.dumps(scored) + "\n")
    done = environment.run("plaudit", "score", "scores.jsonl", "--url", url)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["completions"]) == 2


def test_best_of_n_takes_the_program_that_passes(client: Environment, url: str) -> None:
    item = json.dumps(ITEM)
    code = (
        f"import json, plaudit; item = json.loads({item!r}); "
        f"best = plaudit.best_of_n({url!r}, item['prompt'], item['completions'], tests=item['tests'], "
        "extract='last_fence'); print(best.index, best.decided_by)"
    )
    assert client.python(code).split() == ["1", "tests"]
