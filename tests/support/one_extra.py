"""`plaudit` where only one extra of plaudit-server is installed: one_extra.py EXTRA ARGUMENT…

Packages that the extra does not bring, by the requirements of what is installed here, are not found.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

del sys.path[0]  # this folder: its modules are not top-level ones


def brought(name: str, extras: frozenset[str], seen: set[tuple[str, str]]) -> None:
    """Add every distribution that this one with these extras installs, each with the extra that asked for it."""
    for extra in ("", *extras):
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # of another platform or Python
        for line in lines:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                brought(canonicalize_name(requirement.name), frozenset(requirement.extras), seen)


class Installed:
    """Finds what Python's own finder finds, without the packages of other extras."""

    def __init__(self, extra: str) -> None:
        seen: set[tuple[str, str]] = set()
        brought("plaudit-server", frozenset({extra}), seen)
        self.here = {name for name, _ in seen}
        self.missing = {
            module
            for module, names in metadata.packages_distributions().items()
            if not self.here.intersection(map(canonicalize_name, names))
        }

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        return None if name.partition(".")[0] in self.missing else PathFinder.find_spec(name, path)

    def find_distributions(self, context: metadata.DistributionFinder.Context) -> Iterable[metadata.Distribution]:
        found = PathFinder.find_distributions(context)
        return [one for one in found if canonicalize_name(one.metadata["Name"]) in self.here]


finders: list[object] = [Installed(sys.argv[1]) if finder is PathFinder else finder for finder in sys.meta_path]
sys.meta_path[:] = finders  # type: ignore[assignment]  # a finder needs `find_spec` alone
for module in [name for name in sys.modules if name.partition(".")[0] == "packaging"]:
    del sys.modules[module]

from service.cli import main  # noqa: E402  (what is there is decided first)

if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
