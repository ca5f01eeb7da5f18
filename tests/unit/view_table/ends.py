"""While a broadcast ends, and after it."""

from collections.abc import Mapping
from typing import Final

from tests.unit.view_rows import Row

ENDS: Final[Mapping[str, Row]] = {
    "stopping": Row(
        get="STOPPING STOPPED",
        playable="not met NO_HOST",
        health="IDLE",
        causes="STOPPED_BY_CALLER",
        headline="A caller stopped it.",
        join="ended",
    ),
    "stopping, Mux does not delete": Row(
        get="STOPPING STOPPED 503",
        playable="not met NO_ROOM",
        health="DOWN: INGEST STOP_FAILED",
        causes="TAKE_DOWN_BLOCKED, MUX_UNREACHABLE, STOPPED_BY_CALLER",
        headline=(
            "Not everything is gone yet: stream LS1 does not go, 3 calls failed, the last: "
            "delete_live_stream: 503 busy."
        ),
        join="ended",
    ),
    "stopping, the egress answers no stop": Row(
        get="STOPPING STOPPED",
        playable="not met NOT_RUNNING",
        health="DOWN: EGRESS STOP_FAILED",
        causes="TAKE_DOWN_BLOCKED, STOPPED_BY_CALLER",
        headline="Not everything is gone yet: egress EG_1 does not go, 2 calls failed.",
        join="ended",
    ),
    "ended": Row(
        get="ENDED STOPPED",
        playable="not met NO_ROOM",
        health="IDLE",
        causes="STOPPED_BY_CALLER",
        headline="A caller stopped it.",
        join="recording",
    ),
    "ended, the recording is being made": Row(
        get="ENDED STOPPED",
        playable="not met NO_ROOM",
        health="IDLE",
        causes="STOPPED_BY_CALLER",
        headline="A caller stopped it.",
        join="ended",
    ),
    "ended, the recording could not be made": Row(
        get="ENDED STOPPED",
        playable="not met NO_ROOM",
        health="IDLE: RECORDING ERRORED",
        causes="STOPPED_BY_CALLER, RECORDING_ERRORED",
        headline="A caller stopped it.",
        join="ended",
    ),
    "ended, the host did not come back": Row(
        get="ENDED HOST_LEFT",
        playable="not met NO_ROOM",
        health="IDLE",
        causes="HOST_LEFT",
        headline="The host left and did not come back in time.",
        join="ended",
    ),
    "failed, it could not be started": Row(
        get="FAILED START_TIMEOUT 401",
        playable="not met NO_ROOM",
        health="IDLE",
        causes="MUX_CREDENTIALS, START_TIMEOUT",
        headline="Mux refuses our credentials: create_live_stream: 401 Unauthorized request",
        join="ended",
    ),
    "failed, the live stream was deleted": Row(
        get="FAILED STREAM_LOST",
        playable="not met NO_ROOM",
        health="IDLE",
        causes="STREAM_DELETED_OUTSIDE",
        headline="The live stream was deleted at Mux, and not by us.",
        join="ended",
    ),
}
