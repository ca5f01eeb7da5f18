"""What a measure answers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    name: str
    value: float
    unit: str
    ceiling: float
    ceiling_name: str

    @property
    def ratio(self) -> float:
        return self.value / self.ceiling
