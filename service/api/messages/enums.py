"""Enums of the domain and of the contract, value by value, in both directions.

The text of a value of the domain, in upper case, is the name of its value in the contract, behind the prefix that
every value of an enum of the contract has. The contract's UNSPECIFIED is a value of no domain type: what it means is
the reader's choice.
"""

from collections.abc import Iterable
from typing import Final, Generic, Protocol, TypeVar

from google.protobuf.descriptor import EnumDescriptor

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1 import cost_pb2 as cost_pb
from broadcast.v1 import health_pb2 as health_pb
from broadcast.v1 import participant_pb2
from broadcast.v1 import webhook_service_pb2 as webhook_pb
from service.domain import broadcast as domain
from service.domain.audience.audience import Source
from service.domain.cost.entries import Basis
from service.domain.cost.money import CapAction
from service.domain.cost.prices import CostKind, Tier
from service.domain.health.model import ChainPart, HealthState
from service.domain.measurements import Quality
from service.domain.playback_handle import HandleKind
from service.domain.ports import HostRole, ParticipantKind
from service.domain.provider import WEBHOOK_SENDERS, Provider
from service.domain.resources import RecordingStatus
from service.store.ledger import Grouping
from service.store.webhooks.stored import WebhookOutcome

_MemberT = TypeVar("_MemberT", bound=str)
_NumberT = TypeVar("_NumberT", bound=int)
_NumberT_co = TypeVar("_NumberT_co", bound=int, covariant=True)


class _ContractEnum(Protocol[_NumberT_co]):
    """The class that protobuf generates for an enum."""

    @property
    def DESCRIPTOR(self) -> EnumDescriptor: ...  # noqa: N802 - the generated name

    def Value(self, name: str) -> _NumberT_co: ...  # noqa: N802 - the generated name


class EnumTable(Generic[_MemberT, _NumberT]):
    """Invariant: every member has one number, and no two members have the same."""

    def __init__(self, members: Iterable[_MemberT], enum: _ContractEnum[_NumberT]) -> None:
        """Raises ValueError for a member that the contract does not have."""
        self.descriptor: Final = enum.DESCRIPTOR
        prefix = self.descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")
        self.number: Final = {member: enum.Value(f"{prefix}{member.upper()}") for member in members}
        """Numbers of the contract by members of the domain."""
        self.member: Final = {number: member for member, number in self.number.items()}
        """Members of the domain by numbers of the contract."""


AUDIENCE_SOURCES: Final = EnumTable(Source, pb.AudienceSource)
STATES: Final = EnumTable(domain.State, pb.BroadcastState)
TARGETS: Final = EnumTable(domain.Target, pb.BroadcastState)
"""A target is told as the state that the callers want."""
CONDITION_TYPES: Final = EnumTable(domain.ConditionType, pb.ConditionType)
DESTINATION_STATES: Final = EnumTable(domain.DestinationState, pb.DestinationState)
CARRIERS: Final = EnumTable(domain.Carrier, pb.DestinationCarrier)
PRESETS: Final = EnumTable(domain.PRESETS, pb.EncodingPreset)
LATENCY_MODES: Final = EnumTable(domain.LatencyMode, pb.LatencyMode)
PLAYBACK_POLICIES: Final = EnumTable(domain.PlaybackPolicy, pb.PlaybackPolicy)
RECORDING_POLICIES: Final = EnumTable(domain.RecordingPolicy, pb.RecordingPolicy)
STATIC_RENDITIONS: Final = EnumTable(domain.StaticRendition, pb.StaticRendition)
HANDLE_KINDS: Final = EnumTable(HandleKind, pb.PlaybackHandleKind)
DELIVERY_POLICIES: Final = EnumTable(domain.DeliveryPolicy, pb.DeliveryPolicy)
IDLE_POLICIES: Final = EnumTable(domain.IdlePolicy, pb.IdlePolicy)
FALLBACK_MODES: Final = EnumTable(domain.FallbackMode, pb.FallbackMode)
RECORDING_STATES: Final = EnumTable(RecordingStatus, pb.RecordingState)
COST_GROUPINGS: Final = EnumTable(Grouping, cost_pb.CostGrouping)
COST_KINDS: Final = EnumTable(CostKind, cost_pb.CostKind)
COST_TIERS: Final = EnumTable(Tier, cost_pb.CostTier)
COST_BASES: Final = EnumTable(Basis, cost_pb.CostBasis)
CAP_ACTIONS: Final = EnumTable(CapAction, cost_pb.CostCapAction)
CHAIN_PARTS: Final = EnumTable(ChainPart, health_pb.ChainPart)
HEALTH_STATES: Final = EnumTable(HealthState, health_pb.HealthState)
QUALITIES: Final = EnumTable(Quality, health_pb.ConnectionQuality)
HOST_ROLES: Final = EnumTable(HostRole, rpc.HostRole)
PARTICIPANT_KINDS: Final = EnumTable(ParticipantKind, participant_pb2.ParticipantKind)
WEBHOOK_OUTCOMES: Final = EnumTable(WebhookOutcome, webhook_pb.WebhookOutcome)
WEBHOOK_PROVIDERS: Final[EnumTable[Provider, webhook_pb.WebhookProvider.ValueType]] = EnumTable(
    WEBHOOK_SENDERS, webhook_pb.WebhookProvider
)
