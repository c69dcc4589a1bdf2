"""The proof of the walls: hostile programs through the real path, before any other program is let in."""

from __future__ import annotations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox.walls import Sandbox


def prove(box: Sandbox) -> None:
    pass
