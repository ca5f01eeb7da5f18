"""Puts the generated contract into the wheel, so that the client depends on public packages alone."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PROTOS = Path(__file__).resolve().parents[2] / "protos"


class ContractHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """*version* is "standard" for a wheel, or "editable": its copy of the files would become stale."""
        if version == "editable":
            return
        for package in ("broadcast", "buf"):
            if not (_PROTOS / package).is_dir():
                raise FileNotFoundError(f"no {_PROTOS / package}: the client is built in a checkout of the project")
            build_data["force_include"][str(_PROTOS / package)] = package
