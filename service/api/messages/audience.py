"""The audience of a broadcast, between the contract and the domain."""

from broadcast.v1 import broadcast_pb2 as pb
from service.api.messages.enums import AUDIENCE_SOURCES
from service.api.messages.times import duration_message, time_message
from service.domain.audience.audience import Audience


def audience_message(audience: Audience) -> pb.Audience:
    return pb.Audience(
        viewers=audience.viewers,
        rule=AUDIENCE_SOURCES.number[audience.rule] if audience.rule is not None else pb.AUDIENCE_SOURCE_UNSPECIFIED,
        counts=[
            pb.AudienceCount(
                source=AUDIENCE_SOURCES.number[each.source],
                viewers=each.viewers,
                count_time=time_message(each.counted_at),
                # A clock that was set back makes no count younger than now.
                age=duration_message(max((audience.read_at - each.counted_at).total_seconds(), 0.0)),
            )
            for each in audience.counts
        ],
    )
