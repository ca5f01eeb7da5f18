"""The types of webhooks that are known, and whether a pass acts on them. docs/webhooks.md has the same list, with the
action; a test keeps the two equal.

A type that is not listed is unknown: its webhooks are stored, acknowledged and counted.
"""

from collections.abc import Mapping

from service.domain.provider import Provider

WORTH: Mapping[Provider, Mapping[str, bool]] = {
    # livekit/protocol webhook/consts.go
    Provider.LIVEKIT: {
        "room_started": True,
        "room_finished": True,
        "participant_joined": True,
        "participant_left": True,
        "participant_connection_aborted": True,
        "track_published": True,
        "track_unpublished": True,
        "egress_started": True,
        "egress_updated": True,
        "egress_ended": True,
        "ingress_started": False,
        "ingress_ended": False,
        "agent_job_started": False,
        "agent_job_ended": False,
    },
    # mux.com/docs, Listen for webhooks
    Provider.MUX: {
        "video.live_stream.created": True,
        "video.live_stream.connected": True,
        "video.live_stream.recording": True,
        "video.live_stream.active": True,
        "video.live_stream.disconnected": True,
        "video.live_stream.idle": True,
        "video.live_stream.updated": True,
        "video.live_stream.enabled": True,
        "video.live_stream.disabled": True,
        "video.live_stream.deleted": True,
        "video.live_stream.warning": True,
        "video.live_stream.simulcast_target.created": True,
        "video.live_stream.simulcast_target.idle": True,
        "video.live_stream.simulcast_target.starting": True,
        "video.live_stream.simulcast_target.broadcasting": True,
        "video.live_stream.simulcast_target.errored": True,
        "video.live_stream.simulcast_target.updated": True,
        "video.live_stream.simulcast_target.deleted": True,
        "video.asset.created": True,
        "video.asset.ready": True,
        "video.asset.errored": True,
        "video.asset.live_stream_completed": True,
        "video.asset.deleted": True,
        "video.asset.updated": False,
        "video.asset.warning": False,
        "video.delivery.high_traffic": False,
    },
}


def acted_on(provider: Provider, type_: str) -> bool:
    """Whether a webhook of this type wakes its broadcast."""
    return WORTH[provider].get(type_, False)
