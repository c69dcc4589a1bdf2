"""One open sandbox at level `strong` for all hostile tests; they are skipped where it is not to be had.

The tests of the other levels see to themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.capabilities import HostCapabilities
from sandbox.open import open_sandbox
from sandbox.sandbox import Sandbox

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    capabilities = HostCapabilities.probe()
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.root)
            if capabilities.level != "strong" and item.path.name != "test_levels.py":
                reason = f"needs isolation level strong; missing: {'; '.join(capabilities.missing)}"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with open_sandbox() as opened:
        yield opened
