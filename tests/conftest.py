"""What holds for every test of plaudit."""

import pytest


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """The argument's name for bytes: their text may hold a time, and workers must collect equal names."""
    return argname if isinstance(val, bytes) else None
