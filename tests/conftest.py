"""What holds for every test of plaudit."""

import signal

import pytest


def pytest_configure() -> None:
    """Programs under test get Ctrl-C as at a terminal, even if a shell started the tests in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """The argument's name for bytes: their text may hold a time, and workers must collect equal names."""
    return argname if isinstance(val, bytes) else None
