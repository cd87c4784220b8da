"""`--set name=value`: a method's fields from words, by the types of its fields."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import TYPE_CHECKING, Any, Literal, Union

from firmground.cli.catalogue import word
from firmground.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

YES, NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def build(methods: Sequence[type[Any]], settings: Sequence[str]) -> tuple[Any, ...]:
    """Makes the methods, each setting going to every method that has a field of that name.

    `method.name=value` goes to one method. Raises `UsageError`, with the fields there are, for a setting that no
    method has or a value that does not fit its field.
    """
    return tuple(made(method, values) for method, values in zip(methods, assigned(methods, settings), strict=True))


def assigned(
    methods: Sequence[type[Any]], settings: Sequence[str], *, kept: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The fields that settings give each method, as `build` does; those `kept` are given by options of their own."""
    given: list[dict[str, Any]] = [{} for _ in methods]
    free = [{name: kind for name, kind in _types(m).items() if name not in kept} for m in methods]
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator:
            raise UsageError(f"--set expects name=value, got '{setting}'")
        chosen, _, field = name.strip().rpartition(".")
        takers = [i for i, m in enumerate(methods) if field in free[i] and chosen in ("", word(m))]
        if not takers:
            known = "; ".join(f"{word(m)}: {', '.join(own) or 'none'}" for m, own in zip(methods, free, strict=True))
            raise UsageError(f"no method here has a setting '{name.strip()}'; there are {known}")
        for taker in takers:
            given[taker][field] = parse(value.strip(), free[taker][field], name.strip())
    return given


def parse(text: str, kind: Any, name: str) -> Any:
    """The value of type `kind` that `text` writes; tuples are separated by commas.

    >>> parse("3", int, "steps"), parse("1e-3", float, "step_size"), parse("none", int | None, "steps")
    (3, 0.001, None)
    >>> parse("a,b", tuple[str, ...], "words")
    ('a', 'b')
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _parse_union(text, arguments, name)
    if origin is Literal:
        return _pick(text, {str(choice): choice for choice in arguments}, name)
    if origin is tuple:
        return _parse_tuple(text, arguments, name)
    if kind is bool:
        return _pick(text.lower(), {**dict.fromkeys(YES, True), **dict.fromkeys(NO, False)}, name)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _pick(text, {str(member.value): member for member in kind}, name)
    if kind not in (int, float, str):
        raise UsageError(f"the setting '{name}' cannot be given on the command line; use Python for it")
    try:
        return kind(text)
    except ValueError:
        expected = {int: "a whole number", float: "a number"}[kind]
        raise UsageError(f"the setting '{name}' expects {expected}, got '{text}'") from None


def made(method: type[Any], values: dict[str, Any]) -> Any:
    """The method with these fields. Raises `UsageError` where one that it must have is missing."""
    missing = [
        field.name
        for field in dataclasses.fields(method)
        if field.name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UsageError(f"{word(method)} needs {', '.join(missing)}; give them with --set name=value")
    return method(**values)


def _types(method: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(method)
    return {field.name: hints[field.name] for field in dataclasses.fields(method) if field.init}


def _parse_union(text: str, kinds: tuple[Any, ...], name: str) -> Any:
    if type(None) in kinds and text.lower() in ("none", ""):
        return None
    rest = [kind for kind in kinds if kind is not type(None)]
    for kind in rest[:-1]:
        try:
            return parse(text, kind, name)
        except UsageError:
            continue
    return parse(text, rest[-1], name)


def _parse_tuple(text: str, kinds: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    parts = [part.strip() for part in text.split(",")] if text else []
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(parse(part, kinds[0], name) for part in parts)
    if len(parts) != len(kinds):
        raise UsageError(f"the setting '{name}' expects {len(kinds)} values separated by commas, got '{text}'")
    return tuple(parse(part, kind, name) for part, kind in zip(parts, kinds, strict=True))


def _pick(text: str, choices: dict[str, Any], name: str) -> Any:
    if text not in choices:
        raise UsageError(f"the setting '{name}' expects one of {', '.join(choices)}, got '{text}'")
    return choices[text]
