"""Resolves names that the tests use and do not define: to the program's object, or to the library's.

- Modules, and names that the program imported from one, are the library's: the tests get their own copy.
- So are the names in `WELL_KNOWN` in a test that also uses the entry point: a program that defines its own `isclose`
  would otherwise decide what its answer is close to.
- In a test of such a function alone, and as entry point, the name is the program's. So is a class of the program of
  which the tests use attributes that the library's class does not have.
"""

from __future__ import annotations

import sys

from sandbox.inside.framing import attempt
from sandbox.inside.library_names import follow, import_module
from sandbox.inside.proxy import CLASS, is_mirror, own_entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sandbox.inside.rpc import Endpoint

MODULES = {name: name for name in sys.stdlib_module_names if not name.startswith("_")} | {
    "np": "numpy",
    "numpy": "numpy",
    "nx": "networkx",
    "networkx": "networkx",
    "pd": "pandas",
    "pandas": "pandas",
    "sp": "scipy",
    "scipy": "scipy",
    "sympy": "sympy",
    "npt": "numpy.testing",
    "dt": "datetime",
    "plt": "matplotlib.pyplot",
    "pytest": "pytest",
    "mock": "unittest.mock",
    "la": "numpy.linalg",
    "stats": "scipy.stats",
}
WELL_KNOWN = {
    name: module
    for module, names in {
        "math": "isclose isfinite isinf isnan isqrt sqrt cbrt factorial gcd lcm floor ceil trunc fabs fsum hypot dist "
        "comb log log2 log10 exp sin cos tan atan2 pi inf nan tau copysign radians degrees",
        "collections": "Counter OrderedDict defaultdict deque namedtuple ChainMap UserDict UserList UserString",
        "functools": "reduce partial cmp_to_key lru_cache",
        "itertools": "permutations combinations combinations_with_replacement chain islice zip_longest groupby "
        "accumulate starmap takewhile dropwhile pairwise tee",
        "copy": "deepcopy",
        "decimal": "Decimal getcontext localcontext ROUND_HALF_UP",
        "fractions": "Fraction",
        "datetime": "datetime date timedelta timezone",
        "operator": "itemgetter attrgetter methodcaller",
        "statistics": "fmean pstdev stdev pvariance variance",
        "numpy": "allclose array_equal array_equiv",
        "numpy.testing": "assert_allclose assert_array_equal assert_almost_equal assert_array_almost_equal",
        "dataclasses": "asdict astuple is_dataclass fields",
        "types": "SimpleNamespace MappingProxyType GeneratorType FunctionType",
        "collections.abc": "Iterable Iterator Mapping Sequence Callable Hashable Sized Container Generator Awaitable",
        "unittest": "TestCase",
        "pathlib": "Path PurePath",
        "contextlib": "suppress redirect_stdout contextmanager",
        "bisect": "bisect bisect_left bisect_right insort",
        "heapq": "heappush heappop heapify nlargest nsmallest",
        "pytest": "approx raises",
    }.items()
    for name in names.split()
}


class ProgramNames:
    """The names of the program, as the tests may use them."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.first = str(plan["entry_point"]).partition(".")[0]
        self.whole = str(plan["entry_point"])
        self.mentions: list[bool] = plan.get("mentions", [])
        self.attributes: dict[str, list[str]] = plan.get("attributes", {})
        self.roles = set(plan.get("roles", ()))
        self.used = {name for of, names in self.attributes.items() if of not in MODULES for name in names}
        self.current: int | None = None  # the test that runs
        self.relied_on_program = False

    def begin(self, number: int) -> None:
        self.current = number
        self.relied_on_program = False

    def mentions_entry_point(self) -> bool:
        number = self.current
        return number is None or number >= len(self.mentions) or self.mentions[number]

    def entry_point(self, endpoint: Endpoint) -> Any:
        """The entry point, which is the program's whatever it is called. Raises NameError."""
        value = endpoint.request("get", name=self.whole)
        self.note_class(endpoint, self.whole, value)
        if isinstance(value, type) and is_mirror(value):
            endpoint.entry_class = own_entry(value, CLASS)
        return value

    def imported(self, endpoint: Endpoint, name: str) -> Any:
        """What the tests import from the program by its name. Raises NameError."""
        value = endpoint.request("get", name=name)
        self.note_class(endpoint, name, value)
        if self.first and callable(value) and not isinstance(value, type) and name != self.first:
            self.relied_on_program = True
        return value

    def find(self, endpoint: Endpoint, name: str) -> Any:
        """The meaning of a name that the tests do not define. Raises KeyError if the program lacks it, too."""
        reply = endpoint.exchange("get", {"name": name})
        error = reply.get("error")
        if type(error) is dict and error.get("base") == "NameError" and error.get("name") == "NameError":
            endpoint.finish_reply(reply)
            raise KeyError(name)
        tree = endpoint.raise_error_of(reply).get("ok")
        if name != self.first:
            known = self.library(endpoint, name, tree)
            if known is not None:
                endpoint.finish_reply(reply)
                return known[0]
        value = endpoint.read_value(reply, answering=True)
        self.note_class(endpoint, name, value)
        other = callable(value) and not isinstance(value, type) and name != self.first
        if self.first and other and self.mentions_entry_point():
            self.relied_on_program = True
        return value

    def library(self, endpoint: Endpoint, name: str, tree: Any) -> tuple[Any] | None:
        """The library's own under that name, in a tuple, if it is not the program's to define."""
        tree = tree if type(tree) is dict else {}
        if name in MODULES:
            wanted = self.attributes.get(name, [])
            module, missing = attempt(lambda: import_module(MODULES[name]))
            if missing is None and wanted and any(hasattr(module, attribute) for attribute in wanted):
                return (module,)
            if missing is not None and MODULES[name] not in sys.stdlib_module_names:
                raise KeyError(name)
        ref = tree.get("ref")
        if type(ref) is list and len(ref) == 2 and str(ref[1]).rpartition(".")[2] == name:
            value, missing = attempt(lambda: follow(str(ref[0]), str(ref[1])))
            if missing is None:
                return (value,)
        if name in WELL_KNOWN and self.mentions_entry_point():
            value, missing = attempt(lambda: follow(WELL_KNOWN[name], name))
            if missing is None and not (tree.get("class") is True and self.is_own_class(value, endpoint.decode(tree))):
                return (value,)
        return None

    def is_own_class(self, known: Any, value: Any) -> bool:
        """Whether the tests use attributes of the program's class that the library's does not have."""
        defined = {name for name in vars(value) if not name.startswith("_")} if isinstance(value, type) else set()
        return isinstance(known, type) and bool(self.used & defined - set(dir(known)))

    def note_class(self, endpoint: Endpoint, name: str, value: Any) -> None:
        """Record a class that the tests use by name, so that it counts as named (`special_methods`)."""
        kind: Any = value
        if isinstance(kind, type) and is_mirror(kind):
            last = name.rpartition(".")[2]
            if last.lstrip("_")[:1].isupper() or last in self.roles:
                endpoint.named_classes.add(own_entry(kind, CLASS))
