"""Options are checked where they are written: a name that does not exist, or a value of the wrong form, is raised."""

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
    """`did you mean 'limits'?`, or the names that there are."""
    starts = [one for one in sorted(known) if one.startswith(name) or name.startswith(one)]
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6) or starts
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known))}"


def known_language(name: object) -> str:
    """The language as it was written, if there is one of that name. Raises ValueError."""
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is not a name")
    try:
        resolve(name)
    except UnsupportedLanguage as error:
        raise ValueError(str(error)) from None
    return name
