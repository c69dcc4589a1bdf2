"""The published document is true: whatever a generator makes of it, no answer is a 5xx or is undocumented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from plaudit.schemas import ProblemDocument
from service.api.compat.registry import DIALECTS
from service.api.middleware import PUBLIC
from service.api.openapi_examples import EXAMPLES
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


def test_every_route_of_every_dialect_is_in_the_document(document: dict[str, Any]) -> None:
    for dialect in DIALECTS.values():
        for route in dialect.router.routes:
            assert isinstance(route, APIRoute)
            for method in route.methods:
                operation = document["paths"][route.path][method.lower()]
                assert operation["tags"] == [dialect.name]
                assert dialect.retry_status is None or str(dialect.retry_status) in operation["responses"]


def test_tags_are_described_and_keys_are_asked_for_where_they_are_needed(document: dict[str, Any]) -> None:
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    assert document["components"]["securitySchemes"].keys() == {"bearer", "basic"}
    assert {} in document["security"]  # this service has no keys
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert set(operation["tags"]) <= described
            assert (operation.get("security") == []) is (path in PUBLIC)


def test_problems_name_their_codes(document: dict[str, Any]) -> None:
    answers = document["paths"]["/execute"]["post"]["responses"]
    assert "`testset_unknown`" in answers["404"]["description"]
    for status, response in answers.items():
        if status.startswith(("4", "5")):
            example = ProblemDocument.model_validate(response["content"]["application/problem+json"]["example"])
            assert example.status == int(status)


def test_every_example_is_in_the_document_and_is_answered(stack: Stack, document: dict[str, Any]) -> None:
    with stack.client() as http:
        for path, examples in EXAMPLES.items():
            content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
            assert {one["summary"]: one["value"] for one in content["examples"].values()} == examples
            for summary, body in examples.items():
                answer = http.post(path, json=body, timeout=60)
                assert answer.status_code == 200, (path, summary, answer.text)
    assert EXAMPLES.keys() >= {path for path, methods in METHODS.items() if methods == {"post"}} - {
        "/models/{name}/activate"
    }


def test_the_reference_page_loads_nothing_from_elsewhere(stack: Stack) -> None:
    with stack.client() as http:
        page = http.get("/docs")
        policy = page.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "default-src 'none'" in policy
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert all(not re.match(r"\w+:|//|/", target) or target == "data:," for target in loaded), loaded
        files = [target for target in loaded if target.startswith("docs/")]
        assert len(files) == 3
        for target in files:
            answer = http.get(f"/{target}")
            assert answer.status_code == 200
            assert len(answer.content) > 100
            assert answer.headers["content-type"].startswith(
                "text/css" if target.endswith(".css") else "text/javascript"
            )
        assert http.get("/docs/README.md").status_code == 404


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
