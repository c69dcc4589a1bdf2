"""One tree of errors, one table: what HTTP says of each, and that a code leads back to its class."""

from __future__ import annotations

import pytest

from plaudit import errors
from plaudit.errors import PlauditError, by_code, exit_code
from service.api.error_handlers import problem_document

TABLE = {
    "Invalid": (422, "invalid", False),
    "InvalidTests": (422, "invalid_tests", False),
    "TooLong": (422, "too_long", False),
    "RequestCancelled": (422, "request_cancelled", False),
    "ClientClosed": (499, "client_closed", False),
    "MethodNotAllowed": (405, "method_not_allowed", False),
    "BadRequest": (400, "bad_request", False),
    "Unauthorized": (401, "unauthorized", False),
    "Forbidden": (403, "forbidden", False),
    "NotFound": (404, "not_found", False),
    "TestsetUnknown": (404, "testset_unknown", False),
    "RequestUnknown": (404, "request_unknown", False),
    "RevisionUnknown": (404, "revision_unknown", False),
    "CheckpointRefused": (422, "checkpoint_refused", False),
    "ActivationRunning": (409, "activation_running", True),
    "RevisionMoved": (503, "revision_moved", True),
    "Conflict": (409, "idempotency_conflict", False),
    "Poisoned": (422, "poisoned", False),
    "UnsupportedEncoding": (415, "unsupported_encoding", False),
    "UnsupportedMediaType": (415, "unsupported_media_type", False),
    "TooLarge": (413, "too_large", False),
    "Overloaded": (429, "overloaded", True),
    "WouldMissDeadline": (503, "deadline_unreachable", True),
    "BrokerUnavailable": (503, "broker_unavailable", True),
    "NoWorker": (503, "no_worker", True),
    "ShuttingDown": (503, "shutting_down", True),
    "InfraError": (503, "infra_error", True),
    "Unreachable": (503, "unreachable", True),
    "HostLacks": (500, "host_lacks", False),
    "UsageError": (500, "usage", False),
    "PlauditError": (500, "internal", True),
}


def kinds() -> list[type[PlauditError]]:
    return [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, PlauditError)]


def test_the_table() -> None:
    assert {kind.__name__: (kind.status, kind.code, kind.retryable) for kind in kinds()} == TABLE


def test_codes_and_titles_are_unique() -> None:
    assert len({kind.code for kind in kinds()}) == len(kinds())
    assert len({kind.title for kind in kinds()}) == len(kinds())


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind is not errors.TooLong], ids=lambda kind: kind.code)
def test_a_problem_document_leads_back_to_the_class_that_made_it(kind: type[PlauditError]) -> None:
    problem = problem_document(kind("what happened", retry_after_s=0.25), "r1")

    assert problem.model_dump() == {
        "type": f"urn:plaudit:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "code": kind.code,
        "detail": "what happened",
        "retryable": kind.retryable,
        "retry_after_ms": 250,
        "request_id": "r1",
        "errors": None,
    }
    assert by_code(problem.code) is kind


def test_a_code_of_a_newer_server_is_no_class() -> None:
    assert by_code("out_of_coffee") is None


def test_too_long_says_both_numbers() -> None:
    error = errors.TooLong(300, 256)
    assert (error.tokens, error.limit, error.detail) == (300, 256, "300 tokens, and the model takes at most 256")


def test_exit_codes() -> None:
    assert exit_code(errors.HostLacks("x")) == 3
    assert exit_code(errors.UsageError("x")) == 2
    assert exit_code(errors.Invalid("x")) == 1
    assert (errors.EXIT_OK, errors.EXIT_FAILED) == (0, 1)
