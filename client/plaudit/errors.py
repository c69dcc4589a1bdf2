"""One tree of errors, with what HTTP says about each.

- Program failures are verdicts (return values), not exceptions.
- Client errors are not retryable, server errors are.
- The API's one handler turns either into `application/problem+json` (RFC 9457); the client library turns that back
  into the same classes.
"""

from __future__ import annotations

from typing import ClassVar


class PlauditError(Exception):
    """Base of everything plaudit raises on purpose. Subclasses say what HTTP says about them."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = True

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


# --- client errors ---------------------------------------------------------------------------------------------------


class Invalid(PlauditError):
    """The request is well-formed JSON but asks for something that cannot be."""

    status, code, title, retryable = 422, "invalid", "Invalid request", False


class TooLong(Invalid):
    """A prompt with its completion has more tokens than the model takes, and truncation was not asked for."""

    code, title = "too_long", "Input too long"

    def __init__(self, tokens: int, limit: int, *, at_least: bool = False, part: str = "") -> None:
        most = "the model takes at most" if not part else "there is room for at most"
        super().__init__(f"{part}{'at least ' if at_least else ''}{tokens} tokens, and {most} {limit}")
        self.tokens = tokens
        self.limit = limit


class InvalidTests(Invalid):
    """Tests that no program can be judged by: they assert nothing, or break. The detail names the entry."""

    code, title = "invalid_tests", "Tests cannot be used"


class RequestCancelled(Invalid):
    """The request with this idempotency key was cancelled, so it has no answer; another key starts it again."""

    code, title = "request_cancelled", "Request cancelled"


class ClientClosed(PlauditError):
    """The client closed the connection before it had an answer. No client reads this; logs and metrics have it."""

    status, code, title, retryable = 499, "client_closed", "Client closed the connection", False


class BadRequest(PlauditError):
    """The body is not what it claims to be (not JSON, not UTF-8)."""

    status, code, title, retryable = 400, "bad_request", "Malformed request", False


class Unauthorized(PlauditError):
    status, code, title, retryable = 401, "unauthorized", "API key missing or unknown", False


class Forbidden(PlauditError):
    status, code, title, retryable = 403, "forbidden", "This key may not do that", False


class NotFound(PlauditError):
    status, code, title, retryable = 404, "not_found", "Not found", False


class TestsetUnknown(NotFound):
    code, title = "testset_unknown", "No such test set"

    __test__ = False  # not a test class, whatever pytest thinks of its name


class RequestUnknown(NotFound):
    """No replay is kept under this request id: never seen, of another caller, expired, or nothing in it was judged."""

    code, title = "request_unknown", "No such request"


class MethodNotAllowed(PlauditError):
    status, code, title, retryable = 405, "method_not_allowed", "Method not allowed", False


class Conflict(PlauditError):
    status, code, title, retryable = 409, "idempotency_conflict", "Same idempotency key, another body", False


class RevisionUnknown(NotFound):
    """No checkpoint of this digest is known here, and no path was given where one would be."""

    code, title = "revision_unknown", "No such revision"


class ActivationRunning(PlauditError):
    """Another activation of this model is under way."""

    status, code, title = 409, "activation_running", "Another activation runs"


class CheckpointRefused(Invalid):
    """A worker could not load this checkpoint, or its golden set fails there; the one before goes on serving."""

    code, title = "checkpoint_refused", "Checkpoint refused"


class UnsupportedEncoding(PlauditError):
    """The body is compressed in a way that is not read here."""

    status, code, title, retryable = 415, "unsupported_encoding", "Unsupported content encoding", False


class UnsupportedMediaType(PlauditError):
    """The body is not said to be JSON."""

    status, code, title, retryable = 415, "unsupported_media_type", "Body is not JSON", False


class TooLarge(PlauditError):
    """More items, completions, tests or bytes than a limit allows; the detail names field, value and limit."""

    status, code, title, retryable = 413, "too_large", "Request too large", False


# --- server errors ---------------------------------------------------------------------------------------------------


class Overloaded(PlauditError):
    """A bounded queue is full. `retry_after_s` comes from the rate at which it drains."""

    status, code, title = 429, "overloaded", "Queue full"


class WouldMissDeadline(PlauditError):
    """The expected wait already exceeds the caller's deadline; nothing was queued."""

    status, code, title = 503, "deadline_unreachable", "Deadline cannot be met"


class BrokerUnavailable(PlauditError):
    status, code, title = 503, "broker_unavailable", "Queue unavailable"


class NoWorker(PlauditError):
    """No live worker serves this model or kind of work."""

    status, code, title = 503, "no_worker", "No worker"


class RevisionMoved(NoWorker):
    """Another revision of the model has become the active one since this request began; it starts over."""

    code, title = "revision_moved", "Model changed"


class ShuttingDown(PlauditError):
    status, code, title = 503, "shutting_down", "Shutting down"


class InfraError(PlauditError):
    """The work was accepted and the server failed at it; in an answer this is `status: infra_error`, never a reward."""

    status, code, title = 503, "infra_error", "Internal failure"


class Poisoned(InfraError):
    """No worker survived this piece of work, several times over; trying again would cost more of them."""

    status, code, title, retryable = 422, "poisoned", "Given up", False


class Unreachable(PlauditError):
    """No answer arrived: no connection, or a broken one, for as many attempts as allowed or until the deadline."""

    status, code, title = 503, "unreachable", "Service unreachable"


class HostLacks(PlauditError):
    """This host lacks something named in the message; commands exit with 3."""

    code, title, retryable = "host_lacks", "Host lacks something", False


class UsageError(PlauditError):
    """Wrong flags, files or settings; commands exit with 2."""

    code, title, retryable = "usage", "Wrong usage", False


EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_HOST = 0, 1, 2, 3


def exit_code(error: PlauditError) -> int:
    """The exit code of a command that ended with `error`."""
    if isinstance(error, HostLacks):
        return EXIT_HOST
    return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED


def kinds_below(root: type[PlauditError]) -> list[type[PlauditError]]:
    """This class and every class below it."""
    return [root, *(leaf for child in root.__subclasses__() for leaf in kinds_below(child))]


def by_code(code: str) -> type[PlauditError] | None:
    """The class that a problem document's `code` names; the client raises it. None for a code of a newer server."""
    return next((kind for kind in kinds_below(PlauditError) if kind.code == code and kind is not TooLong), None)
