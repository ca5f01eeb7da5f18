"""The operations at which the simulated Mux takes faults."""

from broadcast_sandbox.faults import WEBHOOK_KINDS, Kind, Site
from broadcast_sandbox.mux.events import EVENTS

METHODS = frozenset(
    {
        "create_live_stream",
        "list_live_streams",
        "get_live_stream",
        "update_live_stream",
        "delete_live_stream",
        "signal_live_stream_complete",
        "disable_live_stream",
        "enable_live_stream",
        "reset_stream_key",
        "create_live_stream_playback_id",
        "get_live_stream_playback_id",
        "delete_live_stream_playback_id",
        "create_live_stream_simulcast_target",
        "get_live_stream_simulcast_target",
        "delete_live_stream_simulcast_target",
        "create_asset",
        "list_assets",
        "get_asset",
        "delete_asset",
        "create_asset_playback_id",
        "get_asset_playback_id",
        "delete_asset_playback_id",
        "get_asset_or_livestream_id",
        "whoami",
        "create_signing_key",
        "list_signing_keys",
        "get_signing_key",
        "delete_signing_key",
    }
)
"""Operations are named after the methods of mux_python, if it has one."""


def sites(outage: Site) -> dict[Kind, Site]:
    calls, publish = Site(operations=METHODS), Site(operations=frozenset({"publish"}))
    return {
        "latency": calls,
        "error": Site(operations=METHODS, details=frozenset({"html", "non_utf8", "headers"})),
        "hang": calls,
        "reset": calls,
        "lost_reply": calls,
        "late_effect": calls,
        "outage": outage,
        **dict.fromkeys(WEBHOOK_KINDS, Site(operations=EVENTS)),
        "rtmp_refuse": Site(operations=frozenset({"publish", "simulcast"})),
        "rtmp_drop": publish,
        "rtmp_no_media": publish,
        "hls_stall": Site(operations=frozenset({"playback"})),
        "upload_fail": Site(operations=frozenset({"upload"})),
    }
