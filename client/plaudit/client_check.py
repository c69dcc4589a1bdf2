"""`plaudit check` where only the client is installed: what is here, and whether a service answers.

Where `plaudit-server` is installed, `service.check` looks at everything that `plaudit up` would need instead.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import Any

from plaudit.client import Client
from plaudit.errors import EXIT_HOST, EXIT_OK, PlauditError

PACKAGES = ("plaudit", "httpx", "pydantic")
TIMEOUT_S = 5.0


def run(url: str, api_key: str | None, *, as_json: bool) -> int:
    """Print the report. Returns the exit code: 3 if no service does work at the URL."""
    report = check_client(url, api_key)
    print(json.dumps(report, indent=2) if as_json else as_text(report))
    return EXIT_HOST if report["missing"] else EXIT_OK


def check_client(url: str, api_key: str | None) -> dict[str, Any]:
    """The client's packages and the service that it reaches; `missing` lists why a call would fail."""
    report: dict[str, Any] = {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "server": "plaudit-server is not installed here: up, serve, worker and the rest of check need it",
        "service": {"url": url},
        "missing": [],
    }
    try:
        with Client(url, api_key, timeout_s=TIMEOUT_S, max_tries=1) as client:
            ready, info = client.ready(), client.info()
    except PlauditError as error:
        report["missing"].append(f"a service at --url {url}: {error.detail}")
        return report
    report["service"] |= {
        "version": info.version,
        "isolation": info.isolation,
        "models": [model.name for model in info.models],
        "languages": [language.name for language in info.languages],
        "ready": ready.ready,
    }
    report["missing"] += [f"the service at {url} is not ready: {reason}" for reason in ready.reasons]
    return report


def as_text(report: dict[str, Any]) -> str:
    """The document for a person."""
    lines = []
    for heading in ("versions", "service"):
        lines.append(f"{heading}:")
        for name, value in report[heading].items():
            lines.append(f"  {name}: {', '.join(value) if isinstance(value, list) else value}")
    lines.append(f"server: {report['server']}")
    missing = [f"  - {text}" for text in report["missing"]]
    return "\n".join([*lines, *(["missing:", *missing] if missing else ["nothing is missing"])])
