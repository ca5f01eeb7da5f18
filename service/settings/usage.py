"""The settings as people read them: `--help` and the table of docs/operations.md, both made from the declarations.

`make docs` writes the table into its place.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import TYPE_CHECKING, Final

from service.domain.timing import Timing
from service.settings.declared import Group, declared
from service.settings.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.settings.declared import Variable

_WIDTH: Final = 120
_NO_BREAK: Final = "\N{NO-BREAK SPACE}"


def usage() -> str:
    """The environment of `serve`, for `--help`."""
    plain, groups = _declared()
    width = max(len(variable.name) for variable in plain)
    lines = ["environment of `serve`, with defaults:"]
    for variable in plain:
        told = "  ".join(part for part in (_default(variable), variable.help) if part)
        lines += _hanging(f"  {variable.name.ljust(width)}  ", told)
    for group in groups:
        lines += ["", f"{group.title}:", _run_on(group.variables.values())]
    lines += ["", "OTEL_EXPORTER_OTLP_ENDPOINT and its relatives send traces and metrics."]
    return "\n".join(lines)


def table() -> str:
    """The same in Markdown: one table of the single variables and one of each group."""
    plain, groups = _declared()
    parts = [_table(plain)]
    waits = docstrings_of_fields(Timing)
    for group in groups:
        parts.append(f"{group.title[0].upper()}{group.title[1:]}:")
        texts = {variable.name: waits.get(name, "") for name, variable in group.variables.items()}
        parts.append(_table(group.variables.values(), texts))
    return "\n\n".join(parts)


def docstrings_of_fields(of: type[object]) -> dict[str, str]:
    """Field name to the string that stands behind it in the source of the class, in one line."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(of))).body
    found: dict[str, str] = {}
    field = ""
    for statement in definition.body if isinstance(definition, ast.ClassDef) else ():
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name)):
                field = name
            case ast.Expr(value=ast.Constant(value=str(text))) if field:
                found[field] = " ".join(text.split())
                field = ""
            case _:
                field = ""
    return found


def _declared() -> tuple[list[Variable], list[Group]]:
    plain: list[Variable] = []
    groups: list[Group] = []
    for each in declared(Settings).values():
        if isinstance(each, Group):
            groups.append(each)
        else:
            plain.append(each)
    return plain, groups


def _default(variable: Variable) -> str:
    if variable.required:
        return "(must be set)"
    return f"({variable.default_text})" if variable.default_text else ""


def _hanging(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head)) or [head.rstrip()]


def _run_on(variables: Iterable[Variable]) -> str:
    told = (f"{variable.name} {_default(variable)}".rstrip() for variable in variables)
    # The default stays in the line of its name.
    joined = ", ".join(each.replace(" ", _NO_BREAK) for each in told)
    return textwrap.fill(joined, _WIDTH - 2, initial_indent="  ", subsequent_indent="  ").replace(_NO_BREAK, " ")


def _table(variables: Iterable[Variable], texts: dict[str, str] | None = None) -> str:
    rows = ["| variable | default | unit | meaning |", "|---|---|---|---|"]
    for variable in variables:
        default = "must be set" if variable.required else f"`{variable.default_text}`" if variable.default_text else ""
        text = variable.help or (texts or {}).get(variable.name, "")
        rows.append(f"| `{variable.name}` | {default} | {variable.unit} | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)
