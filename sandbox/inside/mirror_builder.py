"""Builds the mirror of a class from its description (`operations.describe`).

Enumerations, named tuples, dataclasses and exceptions are rebuilt as what they are.
"""

from __future__ import annotations

import types

from sandbox.inside.class_mirrors import META, SKIPPED, IterableMirror, Mirror, item_of
from sandbox.inside.framing import attempt
from sandbox.inside.operations import base_of
from sandbox.inside.proxy import CLASS, ENDPOINT, Proxy, RemoteAttribute, RemoteMethod, is_mirror, mirror_entry
from sandbox.inside.special_methods import method_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class InheritedInit(RemoteAttribute):
    """`__init__` of a mirror, which only classes of this end that extend it ever call."""

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return UnboundInit(self.number, owner)
        return RemoteMethod(instance, self.name, self.number)


class UnboundInit:
    """`Base.__init__`, called by its class's name."""

    def __init__(self, number: int, owner: type) -> None:
        self.number = number
        self.owner = owner

    def __call__(self, instance: Any, *args: Any, **kwargs: Any) -> Any:
        return RemoteMethod(instance, "__init__", self.number)(*args, **kwargs)


def usable(base: Any) -> bool:
    """Whether a library class can be a base of a mirror: instances can be made without its constructor."""
    if not isinstance(base, type) or issubclass(base, type):
        return False
    return not (base.__module__ == "typing" or type(base).__name__ == "_ProtocolMeta" or base.__name__ == "Generic")


def mirror(endpoint: Any, number: int, about: dict[str, Any]) -> Any:
    """The mirror of a class that `about` describes (`operations.describe`)."""
    name = str(about["name"])
    bases = [base for base in about["bases"] if usable(base)]
    if type(about.get("members")) is list:
        made = enumeration(endpoint, number, about, name, bases)
        if made is not None:
            return made
        bases = [base for base in bases if not hasattr(base, "__members__")]
    if type(about.get("tuple")) is list and not any(is_mirror(base) for base in bases):
        from collections import namedtuple

        bases = [namedtuple(name, [str(field) for field in about["tuple"]])]

    def probe(namespace: dict[str, Any]) -> None:
        namespace[CLASS] = number

    meta = IterableMirror if about.get("walked") else Mirror
    _, error = attempt(lambda: types.new_class(name, (Proxy, *bases), {"metaclass": meta}, probe))
    if error is not None:
        bases = [base for base in bases if is_mirror(base) or base_of(base) or issubclass(base, BaseException)]
    body = body_of(endpoint, number, about, bases)
    lineage = bases if any(issubclass(base, Proxy) for base in bases) else [Proxy, *bases]
    made, error = attempt(
        lambda: types.new_class(name, tuple(lineage), {"metaclass": meta}, lambda ns: ns.update(body))
    )
    if error is not None:
        made = types.new_class(name, (Proxy,), {"metaclass": meta}, lambda ns: ns.update(body))
    set_dataclass_fields(made, about)
    return made


def set_dataclass_fields(made: Any, about: dict[str, Any]) -> None:
    """What `dataclasses` and `typing` look for in a class."""
    type.__setattr__(made, "__qualname__", str(about["qualname"]))
    fields = about.get("fields")
    if type(fields) is not list:
        return
    import dataclasses
    import keyword

    dataclass_fields = {}
    for name, note, is_init, is_repr, kw_only, which in fields:
        if not str(name).isidentifier() or keyword.iskeyword(str(name)):
            continue  # `dataclasses` writes programs with it
        field: Any = dataclasses.field(init=bool(is_init), repr=bool(is_repr), kw_only=bool(kw_only))
        field.name, field.type = str(name), note
        kinds = [dataclasses._FIELD, dataclasses._FIELD_CLASSVAR, dataclasses._FIELD_INITVAR]  # type: ignore[attr-defined]
        field._field_type = next((kind for kind in kinds if kind.name == which), kinds[0])
        dataclass_fields[field.name] = field
    type.__setattr__(made, "__dataclass_fields__", dataclass_fields)
    plain = dataclasses.make_dataclass("_", [], frozen=bool(about.get("frozen")))
    type.__setattr__(made, "__dataclass_params__", plain.__dataclass_params__)  # type: ignore[attr-defined]
    order = tuple(name for name, field in dataclass_fields.items() if field.init and not field.kw_only)
    type.__setattr__(made, "__match_args__", order)


def body_of(endpoint: Any, number: int, about: dict[str, Any], bases: list[Any]) -> dict[str, Any]:
    value_base = next((base if base_of(base) is None else base_of(base) for base in bases if is_value(base)), None)
    names = dict(about["names"])
    for base in bases:  # a class of the library that is neither a value nor an interface: all of it is the other end's
        if (
            not is_mirror(base)
            and not is_value(base)
            and not issubclass(base, BaseException)
            and not is_interface(base)
        ):
            names = {
                name: "function" if callable(getattr(base, name)) else "value"
                for name in dir(base)
                if not hasattr(object, name)
            } | names
    body: dict[str, Any] = {
        "__module__": module_of(about),
        "__doc__": about.get("doc"),
        CLASS: number,
        ENDPOINT: endpoint,
        META: bool(about.get("meta")),
    }
    fields = set(about.get("tuple") or ()) if not any(is_mirror(base) for base in bases) else set()
    local = set(dir(tuple)) | {"_fields", "_asdict", "_replace", "_make", "_field_defaults"} if fields else set()
    for name, how in names.items():
        if name == "__init__":
            body[name] = InheritedInit(name, bound=True, number=number, base=None)
        if name in SKIPPED or name in fields or name in local or "\0" in name or name.startswith("_abc_"):
            continue
        if name.startswith("__") and name.endswith("__"):
            special = None if how == "none" else method_for(name, value_base)
            if special is not None or (how == "none" and method_for(name, value_base) is not None):
                body[name] = special
        else:
            body[name] = RemoteAttribute(name, bound=how == "function", number=number, base=value_base)
    if any(base.__module__ == "typing" for base in about["bases"]):
        body["__class_getitem__"] = classmethod(item_of)
    notes = about.get("annotations")
    if type(notes) is dict:
        body["__annotations__"] = notes
    if any(issubclass(base, BaseException) for base in bases):
        for name in ("__eq__", "__hash__", "__ne__"):
            body.pop(name, None)
    return body


def module_of(about: dict[str, Any]) -> str:
    """The module name of a class. Only what the tests define has `test_suite`."""
    module = str(about["module"])
    return "__main__" if module == "test_suite" else module


def is_value(base: Any) -> bool:
    from_values = base_of(base)
    return (
        from_values is not None or base_of(type("_", (base,), {})) is base if plain_class(base) else bool(from_values)
    )


def plain_class(base: Any) -> bool:
    return not is_mirror(base) and attempt(lambda: type("_", (base,), {}))[1] is None


def is_interface(base: Any) -> bool:
    return str(base.__module__) in ("abc", "collections.abc", "_collections_abc", "numbers", "contextlib", "os")


def enumeration(endpoint: Any, number: int, about: dict[str, Any], name: str, bases: list[Any]) -> Any:
    """The same enumeration, with members of this end's own."""
    import enum

    if not any(isinstance(base, enum.EnumType) for base in bases):
        return None
    meta = enum_mirror()
    value_base = next((base_of(base) for base in reversed(bases) if base_of(base) is not None), None)
    members = [(str(member), value) for member, value in about["members"]]
    taken = {member for member, _ in members}

    def make() -> Any:
        lineage = tuple(bases)
        namespace = meta.__prepare__(name, lineage)
        for member, value in members:
            namespace[member] = value
        namespace["__module__"] = module_of(about)
        for attribute, how in about["names"].items():
            if attribute in taken or attribute in SKIPPED or "\0" in attribute or attribute.startswith("_"):
                if not (attribute.startswith("__") and attribute.endswith("__")) or attribute in SKIPPED:
                    continue
                special = method_for(attribute, value_base) if how != "none" else None
                if special is not None:
                    namespace[attribute] = special
            else:
                namespace[attribute] = RemoteAttribute(
                    attribute, bound=how == "function", number=number, base=value_base
                )
        namespace["__getattr__"] = get_member_attribute
        if "_missing_" in about["names"]:
            namespace["_missing_"] = classmethod(lambda cls, value: missing_member(endpoint, number, value))
        return meta(name, lineage, namespace)

    made, error = attempt(make)
    if error is not None:
        return None
    for key, value in ((CLASS, number), (ENDPOINT, endpoint), (META, False)):
        type.__setattr__(made, key, value)
    return made


def missing_member(endpoint: Any, number: int, value: Any) -> Any:
    """The member for a value that no member has; the program decides."""
    endpoint.relied_on_program = endpoint.relied_on_program or endpoint.guarded
    return endpoint.call({"h": number, "method": "_missing_"}, (value,), {})


def get_member_attribute(self: Any, name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
    return Proxy.__getattr__(self, name)


def enum_mirror() -> Any:
    import enum

    if not _enum_mirrors:

        class EnumMirror(enum.EnumType):
            def __getattr__(cls, name: str) -> Any:
                if name.startswith("__") or "\0" in name or mirror_entry(cls, ENDPOINT) is None:
                    raise AttributeError(name)
                return mirror_entry(cls, ENDPOINT).request("attr", h=mirror_entry(cls, CLASS), name=name)

        _enum_mirrors.append(EnumMirror)
    return _enum_mirrors[0]


_enum_mirrors: list[Any] = []
