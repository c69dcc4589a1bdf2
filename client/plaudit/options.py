"""Checks of options where they are written: an unknown name, an unknown language."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from plaudit.languages import UnsupportedLanguage, resolve


def refuse_unknown(given: Iterable[str], known: Collection[str], function: str) -> None:
    """Raises TypeError for an option that `function` does not have, and names the nearest that it has."""
    for name in given:
        if name not in known:
            raise TypeError(f"{function}() has no option {name!r}; {nearest(name, known)}")


def nearest(name: str, known: Collection[str]) -> str:
    """`did you mean 'limits'?`, or the known names."""
    starts = [option for option in sorted(known) if option.startswith(name) or name.startswith(option)]
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6) or starts
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known))}"


def known_language(name: object) -> str:
    """The language as it was written. Raises ValueError for one that does not exist."""
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is not a name")
    try:
        resolve(name)
    except UnsupportedLanguage as error:
        raise ValueError(str(error)) from None
    return name
