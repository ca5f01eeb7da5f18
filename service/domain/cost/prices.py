"""The prices by which quantities become money. The defaults are list prices; docs/costs.md has sources and dates."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

EGRESS_STEP_US: Final = 60_000_000
"""LiveKit Cloud rounds every egress up to the whole minute (docs.livekit.io, LiveKit Cloud billing, Rounding up).
Microseconds."""


class CostKind(StrEnum):
    """What is paid for."""

    EGRESS = "egress"
    FILE_EGRESS = "file_egress"
    INPUT = "input"
    """The encoding of the live stream, while an encoder is connected."""
    RECORDING = "recording"
    """A month of storage of a recording."""
    DELIVERY = "delivery"
    """What viewers were sent: an estimate."""
    IDLE = "idle"
    """Not paid: an egress was stopped because nobody watched."""


class Tier(StrEnum):
    """The class by which a provider prices the same kind."""

    AUDIO = "audio"
    HD = "720p"
    """Up to 1280 x 720 pixels."""
    FULL_HD = "1080p"
    TEST = "test"
    """A test broadcast, which the provider of live streams does not charge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Nano-dollars a minute. A test costs nothing but its egress."""

    egress: int = 20_000_000
    """An egress with a picture."""
    egress_audio: int = 5_000_000
    """An egress of sound alone."""
    input_720p: int = 25_000_000
    """Encoding of a live stream of up to 1280 x 720 pixels."""
    input_1080p: int = 31_250_000
    """Encoding of a larger one."""
    input_audio: int = 2_500_000
    """Encoding of sound alone."""
    recording_720p: int = 2_400_000
    """A minute of a recording, stored for a month."""
    recording_1080p: int = 3_000_000
    """The same of a larger picture."""
    recording_audio: int = 240_000
    """The same of sound alone."""
    delivery_720p: int = 800_000
    """A minute that one viewer is sent."""
    delivery_1080p: int = 1_000_000
    """The same of a larger picture."""
    delivery_audio: int = 80_000
    """The same of sound alone."""

    def per_minute(self, kind: CostKind, tier: Tier) -> int:
        """Nano-dollars a minute; of RECORDING, for a month of storage. Of IDLE: what a minute without it would cost."""
        match kind:
            case CostKind.EGRESS | CostKind.FILE_EGRESS:
                return self.egress_audio if tier is Tier.AUDIO else self.egress
            case CostKind.INPUT:
                return self._of(tier, self.input_audio, self.input_720p, self.input_1080p)
            case CostKind.RECORDING:
                return self._of(tier, self.recording_audio, self.recording_720p, self.recording_1080p)
            case CostKind.DELIVERY:
                return self._of(tier, self.delivery_audio, self.delivery_720p, self.delivery_1080p)
            case CostKind.IDLE:
                return self.per_minute(CostKind.EGRESS, tier) + self.per_minute(CostKind.INPUT, tier)

    @staticmethod
    def _of(tier: Tier, audio: int, hd: int, full_hd: int) -> int:
        match tier:
            case Tier.AUDIO:
                return audio
            case Tier.HD:
                return hd
            case Tier.FULL_HD:
                return full_hd
            case Tier.TEST:
                return 0
