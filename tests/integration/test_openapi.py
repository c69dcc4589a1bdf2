"""The published document is true: whatever a generator makes of it, no answer is a 5xx or is undocumented."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from support.stack import Stack

METHODS = {
    "/score": {"post"},
    "/execute": {"post"},
    "/reward": {"post"},
    "/rank": {"post"},
    "/audit": {"post"},
    "/jobs/{job_id}": {"get", "delete"},
    "/jobs/{job_id}/events": {"get"},
    "/testsets/{sha256}": {"put"},
    "/requests/{request_id}/replay": {"get"},
    "/models": {"get"},
    "/models/{name}/activate": {"post"},
    "/languages": {"get"},
    "/info": {"get"},
    "/health": {"get"},
    "/ready": {"get"},
    "/metrics": {"get"},
}

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
MANY, FEW = 25, 8


@pytest.fixture(scope="module")
def document(stack: Stack) -> dict[str, Any]:
    with stack.client() as http:
        found: dict[str, Any] = http.get("/openapi.json").json()
        return found


def test_every_endpoint_of_the_contract_is_in_the_document(document: dict[str, Any]) -> None:
    found = {path: set(methods) for path, methods in document["paths"].items()}
    assert {path: found.get(path) for path in METHODS} == METHODS


def test_every_problem_is_a_problem_document(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if status.startswith(("4", "5")) and path != "/ready":
                    assert list(response["content"]) == ["application/problem+json"], (path, method, status)


def test_every_schema_that_is_named_is_there_and_is_a_schema(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    text = json.dumps(document)
    names = {part.split('"', 1)[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(schemas)
    assert "#/$defs/" not in text


def test_unknown_fields_are_forbidden_by_the_document_too(document: dict[str, Any]) -> None:
    for name in ("ScoreRequest", "ExecuteRequest", "RewardRequest", "RankRequest", "ExecuteItem", "LimitsSpec"):
        assert document["components"]["schemas"][name]["additionalProperties"] is False


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as one:
        yield one


OPERATIONS = [(method, path) for path in METHODS for method in sorted(METHODS[path])]
WELL = [(method, path, GenerationMode.POSITIVE) for method, path in OPERATIONS]
ILL = [(method, path, GenerationMode.NEGATIVE) for method, path in OPERATIONS if method == "post" or "{" in path]


@pytest.mark.parametrize(("method", "path", "mode"), WELL + ILL)
def test_no_answer_is_a_5xx_or_undocumented(
    stack: Stack, document: dict[str, Any], session: requests.Session, method: str, path: str, mode: GenerationMode
) -> None:
    operation = schemathesis.openapi.from_dict(document)[path][method.upper()]

    @settings(
        max_examples=MANY if method in ("post", "put") else FEW,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def probe(case: schemathesis.Case) -> None:
        response = case.call(base_url=stack.url, session=session, timeout=20)
        case.validate_response(response, checks=CHECKS)
        assert response.status_code < 500 or response.json()["code"] == "deadline_unreachable", response.text

    probe()


async def test_a_body_that_is_not_utf8_is_400_as_documented(stack: Stack, document: dict[str, Any]) -> None:
    async with stack.async_client() as http:
        for path, methods in METHODS.items():
            if "post" in methods:
                answer = await http.post(path, content=b"\xff", headers={"Content-Type": "application/json"})
                assert answer.status_code == 400
                assert "400" in document["paths"][path]["post"]["responses"]
