"""Recognises stand-ins for objects of the other end, and converts them to the form that a place needs."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def is_stand_in(value: Any) -> bool:
    """Whether a value stands for an object of the other end."""
    return type(type(value)).__name__ == "Mirror"


def type_name_of(value: Any) -> str:
    """The type name of the object that a value stands for; empty for a value of this end."""
    return type(value).__name__ if is_stand_in(value) else ""


def in_form(how: str, value: Any) -> Any:
    """A stand-in that behaves in its place as the tests' object itself would."""
    if how == "static":
        return staticmethod(value)
    if how == "getter":
        return property(value)
    if how == "property":
        return property(lambda self: value(), lambda self, new: value(new))
    if how != "method":
        return value

    def method(*args: Any, **kwargs: Any) -> Any:
        return value(*args, **kwargs)

    return method


def bound_form(target: Any, value: Any) -> Any:
    """The value to set on an object of the program where the tests set an object of their own."""
    if not isinstance(target, type):
        return value
    return in_form({"function": "method", "PropertyMock": "property"}.get(type_name_of(value), "value"), value)
