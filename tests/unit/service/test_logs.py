"""Logs are JSON, a line each, and what users send is in none of them unless a setting asks for it."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service import logs
from service.api.app import create_app
from service.settings import Settings


@contextmanager
def captured() -> Iterator[list[dict[str, Any]]]:
    """Everything that is logged inside, as our own formatter writes it."""
    stream, lines = io.StringIO(), list[dict[str, Any]]()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel("DEBUG")
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        lines += [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_its_fields() -> None:
    with captured() as lines:
        logging.getLogger("plaudit.test").warning("%s of\n%s", 1, 2, extra={"job": "j1", "tokens": 7})

    (line,) = lines
    assert {name: line[name] for name in ("level", "logger", "message", "job", "tokens")} == {
        "level": "warning",
        "logger": "plaudit.test",
        "message": "1 of\n2",
        "job": "j1",
        "tokens": 7,
    }
    assert line["time"].endswith("Z")


def test_on_a_terminal_a_line_is_for_people_and_elsewhere_for_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    said: dict[str, str] = {}
    for form, stream in (("auto", Terminal()), ("auto", io.StringIO()), ("text", io.StringIO()), ("json", Terminal())):
        monkeypatch.setattr("sys.stderr", stream)
        logs.configure("info", form)  # type: ignore[arg-type]
        logging.getLogger("plaudit.test").warning("slow", extra={"job": "j 1", "ms": 7.5, "tenant": ""})
        said[f"{form} {stream.isatty()}"] = stream.getvalue()
    for person in ("auto True", "text False"):
        assert re.fullmatch(r'\d\d:\d\d:\d\d\.\d{3} warning test: slow  job="j 1"  ms=7\.5\n', said[person]), said
    for machine in ("auto False", "json True"):
        assert json.loads(said[machine])["job"] == "j 1"


def test_no_value_ends_a_line_for_people() -> None:
    record = logging.makeLogRecord({"msg": "m", "levelname": "INFO", "name": "plaudit.x", "client": "a\nb"})
    assert logs.TextFormatter().format(record).endswith('client="a\\nb"')


def test_an_exception_stays_in_its_line() -> None:
    with captured() as lines:
        try:
            raise KeyError("x")
        except KeyError:
            logging.getLogger("plaudit.test").exception("failed")

    (line,) = lines
    assert line["exception"].endswith("KeyError: 'x'")


def test_what_json_cannot_say_is_said_in_words() -> None:
    with captured() as lines:
        logging.getLogger("plaudit.test").info("odd", extra={"thing": {1}})
    assert lines[0]["thing"] == "{1}"


def test_configure_sends_everything_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers, root.level
    try:
        logs.configure("warning")
        logging.getLogger("anything").warning("heard")
        logging.getLogger("anything").info("not heard")
    finally:
        root.handlers = before
        root.setLevel(level)
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(line)["message"] for line in err.splitlines()] == ["heard"]


def asking(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


SECRET = "completely-private-text"
ASSERT = {"kind": "assert", "asserts": ["assert x"]}
SCORE = {"items": [{"prompt": SECRET, "completions": [SECRET]}]}
BODIES: list[tuple[str, Any]] = [
    ("/score", SCORE),
    ("/score", SCORE | {SECRET: SECRET}),
    ("/score", [SECRET]),
    ("/execute", {"items": [{"language": "python", "programs": [SECRET], "tests": {"kind": SECRET}}]}),
    ("/execute", {"items": [{"language": SECRET, "programs": [SECRET], "tests": ASSERT}]}),
]


@pytest.mark.parametrize("log_payloads", [False, True])
async def test_payloads_are_logged_only_if_a_setting_asks(log_payloads: bool) -> None:
    app = create_app(Settings(redis_url="unix:///nowhere/at/all", log_payloads=log_payloads))
    with captured() as lines:
        async with app.router.lifespan_context(app), asking(app) as http:
            statuses = [(await http.post(path, json=body)).status_code for path, body in BODIES]

    assert statuses == [503, 422, 422, 422, 503]
    assert (SECRET in json.dumps(lines)) is log_payloads
    assert [line["status"] for line in lines if line["message"] == "request"] == statuses


async def test_every_request_leaves_one_line_that_names_it() -> None:
    app = create_app(Settings(redis_url="unix:///nowhere/at/all", api_key=["k-one"]))
    with captured() as lines:
        async with app.router.lifespan_context(app), asking(app) as http:
            await http.get("/models", headers={"X-Request-Id": "r1"})
            await http.get("/models", headers={"X-Request-Id": "r2", "Authorization": "Bearer k-one"})

    found = [line for line in lines if line["message"] == "request"]
    assert [(line["request_id"], line["status"], line["method"]) for line in found] == [
        ("r1", 401, "GET"),
        ("r2", 200, "GET"),
    ]
    assert found[1]["route"] == "/models"
    assert found[1]["tenant"] != ""
    assert "k-one" not in json.dumps(lines)
