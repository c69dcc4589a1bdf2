"""Who may import whom: checked by import-linter's contracts, and by looking at what a process has really loaded."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def loaded_by(*modules: str) -> set[str]:
    """Top-level packages in a fresh interpreter after importing these modules."""
    code = f"import sys, {', '.join(modules)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (
            ("plaudit", "plaudit.cli"),
            {"pydantic", "httpx", "torch", "fastapi", "redis", "service", "sandbox", "training"},
        ),
        (
            ("plaudit.client", "plaudit.integrations.trl", "plaudit.integrations.verl"),
            {"torch", "trl", "verl", "fastapi", "redis", "service", "sandbox", "training"},
        ),
        (("service.api.app", "service.api.server", "service.cli"), {"torch", "transformers", "tokenizers", "numpy"}),
        (("service.cli", "service.up.launcher"), {"torch", "transformers", "fastapi", "redis", "pyseccomp"}),
        (("service.worker.main", "service.worker.execute"), {"torch", "transformers", "fastapi", "uvicorn"}),
        (
            ("sandbox.judge", "sandbox.sandbox"),
            {"torch", "fastapi", "redis", "httpx", "pydantic", "service", "training"},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_process_loads_nothing_that_it_does_not_need(modules: tuple[str, ...], absent: set[str]) -> None:
    assert loaded_by(*modules) & absent == set()


def needs_of(*packages: str) -> set[str]:
    """These packages and all that they require, without their extras."""
    required, todo = set[str](), list(packages)
    while todo:
        package = canonicalize_name(todo.pop())
        if package not in required:
            required.add(package)
            lines = [Requirement(line) for line in importlib.metadata.requires(package) or ()]
            todo += [line.name for line in lines if line.marker is None or line.marker.evaluate({"extra": ""})]
    return required


def test_the_client_needs_httpx_and_pydantic_and_nothing_else() -> None:
    belongs_to = importlib.metadata.packages_distributions()
    extra = loaded_by("plaudit.client") - loaded_by("httpx", "pydantic")  # httpx takes rich along where it finds it
    loaded = {canonicalize_name(name) for module in extra for name in belongs_to.get(module, ())}
    assert loaded - {"plaudit"} <= needs_of("httpx", "pydantic")


def test_the_import_contracts_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout
