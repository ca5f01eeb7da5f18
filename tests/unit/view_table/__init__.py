"""What each view says of each situation, word for word: one row a situation, one column a view."""

from collections.abc import Mapping
from typing import Final

from tests.unit.view_rows import Row
from tests.unit.view_table.ends import ENDS
from tests.unit.view_table.interrupted import INTERRUPTED
from tests.unit.view_table.live import LIVE
from tests.unit.view_table.starts import STARTS

TABLE: Final[Mapping[str, Row]] = {**STARTS, **LIVE, **INTERRUPTED, **ENDS}
