"""The client's half of the command line, with and without the server's half; and the public names of `plaudit`."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

import plaudit
from plaudit import cli


def run(*words: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PLAUDIT_")}
    argv = [sys.executable, "-P", "-m", "plaudit.cli", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, env=env)


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where `plaudit-server` is not installed."""

    def missing(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(cli, "distribution", missing)


def test_client_flags_come_from_the_environment_too_and_flags_win() -> None:
    environ = {
        "PLAUDIT_URL": "http://127.0.0.1:9",
        "PLAUDIT_API_KEY": "k1,k2",
        "PLAUDIT_CONCURRENCY": "3",
        "PLAUDIT_EARLY_STOP": "true",
    }
    flags = cli.parser(environ).parse_args(["rank", "-", "--concurrency", "5"])
    assert (flags.url, flags.api_key, flags.concurrency) == ("http://127.0.0.1:9", "k1", 5)
    assert flags.early_stop is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["score", "/no/such/file.jsonl"], "No such file"),
        (["rank", "-", "--spec", "/no/such/spec.json"], "No such file"),
        (["score", "-", "--batch", "0"], "take whole numbers"),
        (["execute"], "either FILE.jsonl or --replay"),
        (["rank", "-", "--resume"], "--resume needs --out FILE"),
        ([], "COMMAND"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2_and_says_why(words: list[str], message: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_client_that_reaches_nothing_exits_with_1(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"prompt": "p", "completions": ["c"]}\n')
    done = run("score", str(file), "--url", "http://127.0.0.1:9", "--deadline-ms", "300")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert "no answer from http://127.0.0.1:9" in done.stderr
    assert "`plaudit up`" in done.stderr


@pytest.mark.parametrize("command", [*cli.CLIENT_COMMANDS, "up", "serve", "worker score", "worker execute", "check"])
def test_the_help_of_every_command_shows_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from service.cli import main

    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    assert f"Examples:\n  plaudit {command}" in capsys.readouterr().out


def test_with_the_server_installed_help_lists_its_commands() -> None:
    text = run("--help").stdout
    assert all(f"\n    {command} " in text for command in (*cli.SERVER_COMMANDS, "check", *cli.CLIENT_COMMANDS))


@pytest.mark.usefixtures("no_server")
def test_without_the_server_help_lists_the_clients_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert all(f"\n    {command} " in text for command in ("check", *cli.CLIENT_COMMANDS))
    assert not any(f"\n    {command} " in text for command in cli.SERVER_COMMANDS)


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize("words", [["up"], ["worker", "score", "--redis-url", "x"], ["serve"]], ids=" ".join)
def test_without_the_server_its_commands_say_what_to_install(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 3
    assert f"`plaudit {words[0]}`" in (text := capsys.readouterr().err)
    assert "pip install 'plaudit-server[api,scorer,executor]'" in text


@pytest.mark.usefixtures("no_server")
def test_check_without_the_server_looks_for_a_service(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--url", "http://127.0.0.1:9", "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["versions"].keys() == {"python", "plaudit", "httpx", "pydantic"}
    assert "--url http://127.0.0.1:9" in report["missing"][0]
    assert cli.main(["check", "--url", "http://127.0.0.1:9"]) == 3
    assert "missing:\n  - a service at --url" in capsys.readouterr().out


# --- import plaudit --------------------------------------------------------------------------------------------------


def test_every_public_name_is_there_and_known_to_editors() -> None:
    assert set(plaudit.__all__) == set(dir(plaudit))
    assert all(getattr(plaudit, name) is not None for name in plaudit.__all__)
    tree = ast.parse(Path(plaudit.__file__).read_text("utf-8"))
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {name.name for node in guarded.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert imported | {"__version__"} == set(plaudit.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'Clint'"):
        plaudit.Clint  # type: ignore[attr-defined]  # noqa: B018


def test_public_calls_have_signatures_and_docstrings_of_their_own() -> None:
    tree = ast.parse(Path(sys.modules[plaudit.Client.__module__].__file__ or "").read_text("utf-8"))
    (client,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Client")
    methods = {node.name: ast.get_docstring(node) for node in client.body if isinstance(node, ast.FunctionDef)}
    public = {name for name in dir(plaudit.Client) if not name.startswith("_")}
    assert public <= methods.keys()
    assert [name for name in sorted(public) if not methods[name]] == []
