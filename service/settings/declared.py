"""How a setting is declared: one environment variable, its parser, its default, its unit and its meaning, in one line.

All that is said of the settings elsewhere (`--help`, the table in docs/operations.md) is made from these declarations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import timedelta
from typing import Any, Final

from service.providers.budget import Limit
from service.settings.parsers import Wrong

_DECLARED: Final = "declared"
"""The key in the metadata of a dataclass field."""


class SettingError(Exception):
    """A variable is missing or wrong. The message names the variable and never quotes its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One environment variable."""

    name: str
    parse: Callable[[str], Any]
    """Raises Wrong with the reason, or ValueError for a text that is no number. Never gets an empty text."""
    help: str
    unit: str = ""
    default: Callable[[], Any] | None = None
    """None: it must be set."""
    default_text: str = ""
    """The default as it would be written in the environment."""

    @property
    def required(self) -> bool:
        return self.default is None

    def is_set(self, environ: Mapping[str, str]) -> bool:
        return bool(environ.get(self.name, "").strip())

    def read(self, environ: Mapping[str, str]) -> Any:
        """The parsed value, or the default if the variable is unset or blank. Raises SettingError."""
        text = environ.get(self.name, "").strip()
        if not text:
            if self.default is None:
                raise SettingError(f"{self.name} is not set")
            return self.default()
        try:
            return self.parse(text)
        except ValueError as error:
            # Only `Wrong` is ours: the message of int() or float() would quote the value, which may be a secret.
            reason = error.args[0] if isinstance(error, Wrong) else "not a number"
            # `from None`: the chained error would bring the value back into the traceback.
            raise SettingError(f"{self.name}: {reason}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The variables of a dataclass that is one field of the settings."""

    make: Callable[..., Any]
    title: str
    variables: Mapping[str, Variable]
    """Field of the dataclass to its variable."""
    optional: bool
    """Whether the group may be left out as a whole. One variable that is set demands the rest of the required ones."""

    def read(self, environ: Mapping[str, str]) -> Any:
        """None if the group is optional and no variable of it is set. Raises SettingError."""
        if self.optional and not any(variable.is_set(environ) for variable in self.variables.values()):
            return None
        return self.make(**{name: variable.read(environ) for name, variable in self.variables.items()})


def setting(
    name: str,
    parse: Callable[[str], Any],
    default: Any = MISSING,
    *,
    help: str,
    unit: str = "",
    default_text: str | None = None,
    secret: bool = False,
) -> Any:
    """A dataclass field that is read from the variable *name*.

    *default*: a value, or a function that makes it; without one the variable must be set. *default_text*: how the
    default is shown where its own text would differ from machine to machine. *secret*: kept out of `repr`, for values
    that do not hide themselves as `Secret` does.
    """
    variable = Variable(name=name, parse=parse, help=help, unit=unit)
    if default is MISSING:
        return field(metadata={_DECLARED: variable}, repr=not secret)
    make = default if callable(default) else lambda: default
    text = written(default) if default_text is None else default_text
    variable = replace(variable, default=make, default_text=text)
    if callable(default):
        return field(default_factory=default, metadata={_DECLARED: variable}, repr=not secret)
    return field(default=default, metadata={_DECLARED: variable}, repr=not secret)


def group(of: type[Any], title: str, variables: Mapping[str, Variable], *, optional: bool = False) -> Any:
    """A dataclass field that is a dataclass itself. *variables*: by its field names; the defaults are those of *of*."""
    defaults = {each.name: each.default for each in fields(of)}
    declared = Group(
        make=of,
        title=title,
        variables={name: _with_default(variable, defaults[name]) for name, variable in variables.items()},
        optional=optional,
    )
    if optional:
        return field(default=None, metadata={_DECLARED: declared})
    return field(default_factory=of, metadata={_DECLARED: declared})


def _with_default(variable: Variable, default: Any) -> Variable:
    if default is MISSING:
        return variable
    return replace(variable, default=lambda: default, default_text=variable.default_text or written(default))


def declared(of: type[Any]) -> dict[str, Variable | Group]:
    """Field name to declaration, in the order of the fields. Every field of *of* must be declared."""
    return {each.name: each.metadata[_DECLARED] for each in fields(of)}


def written(default: object) -> str:
    """A default as it would be written in the environment."""
    match default:
        case bool():
            return str(default).lower()
        case timedelta():
            return f"{default.total_seconds():g}"
        case float():
            return f"{default:g}"
        case Limit():
            return f"{default.rate:g}/{default.burst:g}"
        case _:
            return str(default or "")
