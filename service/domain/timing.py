"""How long the service waits, for each thing that it waits for."""

from dataclasses import dataclass

from service.domain.broadcast import LatencyMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All times are in seconds."""

    start_deadline_s: float = 120.0
    """For room and live stream, from the first attempt to create them. The time that a create waits in the service, for
    a token of the rate limit or for a replica, is not counted."""
    host_wait_s: float = 1800.0
    """How long a broadcast that was never live waits for a host; then it ends with NO_HOST."""
    host_return_s: float = 300.0
    """How long a host who was live and left may take to come back; then the broadcast ends with HOST_LEFT."""
    start_answer_s: float = 28.0
    """For the answer to a start of an egress. LiveKit refuses one that no worker takes after 21.7 to 24.3 s (measured,
    livekit-server 1.13.5; 27 s by its code); the lease is renewed meanwhile."""
    egress_start_s: float = 60.0
    """From the start of an egress to ACTIVE. Room composite waits for its page without a limit of its own
    (livekit/egress pkg/pipeline/controller.go), so this is the only one."""
    connect_s: float = 40.0
    """From an ACTIVE egress to its connection to the live stream. LiveKit gives up after 30 s without one, but not
    where nothing answers (livekit/egress#744)."""
    ingest_start_s: float = 75.0
    """From an ACTIVE egress to an active live stream."""
    egress_stop_s: float = 45.0
    """From StopEgress, or from an end of its own, to a terminal status: the encoder drains for at most 30 s."""
    ghost_s: float = 15.0
    """An active egress that is not in its room for so long is a ghost: its worker is gone, and no event will say so
    (livekit/egress#950)."""
    roll_call_s: float = 20.0
    """Between two looks at who is in a room where several egresses may be: the list of rooms, which the observer reads,
    says only whether any is."""
    stop_again_s: float = 3600.0
    """The longest time from the write-off of an egress that answers no stop, and is in its room still, to the next
    stop."""
    ghost_stop_s: float = 15.0
    """From the stop of a ghost, which does not answer it, to the write-off."""
    file_stop_s: float = 900.0
    """The same for a file egress that is ending: it puts its whole file into the storage before it is done."""
    drain_s: float = 10.0
    """From the stop of an egress that delivers, at the end of a broadcast, until the live stream is disabled although
    the egress was not seen to end. An egress holds about 3 s of media, which it still sends; one that is wedged drains
    for 30 s and sends nothing (both measured with livekit/egress 1.14.1)."""
    viewers_low_s: float = 20.0
    """From the disable of a live stream, which ends its playlist, to its deletion, after which the playlist answers
    404: the slowest viewer of latency mode LOW has seen the end by then. Viewers are 5 s behind the live edge
    (mux.com/docs, Reduce live stream latency), and a player that stalled is further behind."""
    viewers_reduced_s: float = 35.0
    """The same in latency mode REDUCED, where viewers are 12 to 20 s behind."""
    viewers_standard_s: float = 45.0
    """The same in latency mode STANDARD, where viewers are 25 to 30 s behind."""
    list_lag_s: float = 2.0
    """A list may lag behind a create by this much."""
    stream_grace_s: float = 30.0
    """A create without an answer that no list shows after this time did not happen."""
    egress_grace_s: float = 90.0
    """The same for an egress: LiveKit tries a start for 10 + 20 + 40 s after the caller has left
    (livekit/protocol rpc/egress_client.go)."""
    update_grace_s: float = 20.0
    """A destination that was added without an answer may still come, and a second one beside it would send twice.
    LiveKit tries for 3 + 5 + 7 s (livekit/protocol rpc/typed_api.go)."""
    absence_s: float = 5.0
    """Between two looks that lack a resource before it is believed to be gone, where no other source contradicts."""
    forgotten_s: float = 10.0
    """Between two creates that ask for a room which the provider's lists lack and a create before answered with."""
    counts_lag_s: float = 10.0
    """For so long the counts of a room may be late: 9.2 s were measured (livekit-server 1.13.5)."""
    lookup_s: float = 2.0
    """Between two looks at a resource whose existence is not known, or whose absence is awaited."""
    watch_s: float = 3.0
    """Between two looks at an egress that is on its way."""
    ingest_watch_s: float = 5.0
    """Between two looks at a live stream whose media should come any moment."""
    delete_retry_s: float = 10.0
    """A delete that was confirmed but not seen is called again after this time."""
    replan_s: float = 300.0
    """A broadcast in its wanted state is looked at and planned again this often, even if nothing was noticed."""
    cost_look_s: float = 60.0
    """The cost of a running broadcast with a cost cap is computed this often: nothing tells that its audience grew."""
    starts_window_s: float = 600.0
    """The window in which the egress starts of one broadcast are counted."""
    starts_limit: int = 5
    """Egress starts of one broadcast that failed in a window: a loop of failing starts costs money."""
    starts_spent: int = 30
    """Egress starts of one broadcast in a window, failed or not: so does whoever goes on and off air all the time."""
    starts_backoff_s: float = 10.0
    """From the second egress of a window that failed to the next start, and four times as long with each: trouble of a
    minute must not use up the limit. The first is replaced at once."""
    reconnect_s: float = 30.0
    """A live stream that falls silent later than this after an egress connected was fed by it until then."""
    ingest_lost_s: float = 10.0
    """From a live stream that was active and is idle to the egress that should feed it being taken for dead."""
    stalled_s: float = 30.0
    """From a playlist that is known to stand still to the egress that feeds it being replaced."""
    destination_failures: int = 10
    """A destination that failed so often within `destination_window_s` is not tried again by itself."""
    destination_window_s: float = 600.0
    """The window in which the failures of a destination are counted."""
    destination_pause_s: float = 10.0
    """From the first failure of a destination to the next try, and twice as long with each further failure."""
    destination_longest_pause_s: float = 60.0
    """The longest such pause: ten failures of a destination that refuses at once fit into the window."""
    fallback_faults: int = 3
    """So many egresses that failed within `starts_window_s` are reason enough for a fallback."""
    fallback_refused_s: float = 30.0
    """Starts that are refused count among them when they have been refused for so long: less is a throttle."""
    fallback_outage_s: float = 120.0
    """A provider that is away for longer is not waited for."""
    fallback_return_s: float = 120.0
    """The normal way must have been healthy for so long before viewers are sent back to it."""
    hopeless_s: float = 900.0
    """With no fallback left, a broadcast that was not playable for so long ends. Longer than `starts_window_s` and one
    start, so a broadcast that used up the limit of starts gets one more."""
    linger_s: float = 60.0
    """ON_DEMAND: from the last sign of a viewer to the stop of the egress, where the spec does not say. Not shorter
    than the window, in which a viewer may be there without a sign; and not longer, because a viewer who comes back
    within the reconnect window of the live stream after it, 120 s more, still gets the same recording."""
    min_run_s: float = 120.0
    """ON_DEMAND: from the decision to run an egress to the earliest stop. A start takes up to 30 s to be playable: one
    that is stopped before it serves anybody is paid for nothing."""
    flap_starts: int = 6
    """ON_DEMAND: with so many starts of a broadcast in an hour its egress runs on to the end."""
    flap_s: float = 3600.0
    """The window of `flap_starts`."""
    audience_stale_s: float = 10.0
    """If no replica wrote down its viewers for longer, nobody knows whether somebody watches, and nothing is stopped.
    Replicas do it once a second."""
    audience_hold_s: float = 90.0
    """From a gap in the counting of viewers to the earliest stop: every viewer who is there has given a sign again by
    then, with a retry."""
    warm_s: float = 45.0
    """ON_DEMAND: an egress is started so long before the scheduled start of the show, so that it is playable then."""
    upload_grace_s: float = 600.0
    """An upload without an answer is looked for so long before it is tried again."""
    upload_attempts: int = 3
    """How many assets are tried of one file before the service gives up."""
    upload_retry_s: float = 60.0
    """From an asset that could not be made to the next try; five times as long with each."""
    recording_wait_s: float = 86_400.0
    """How long a recording is waited for after the end."""

    audience_window_s: float = 60.0
    """A viewer who gave a sign within this time may be there still: three times the longest time between two signs."""
    audience_slot_s: float = 15.0
    """Viewers are counted in slots of this length, by the clock of the database. The same in all replicas."""
    keep_alive_s: float = 20.0
    """Viewers are told to give a sign this often, or more often where `audience_window_s` is short: a viewer of whom
    one sign is lost still counts when the next one comes."""

    def viewers_s(self, mode: LatencyMode) -> float:
        """Seconds from the end of the playlist until the slowest viewer of *mode* has seen it."""
        match mode:
            case LatencyMode.LOW:
                return self.viewers_low_s
            case LatencyMode.REDUCED:
                return self.viewers_reduced_s
            case LatencyMode.STANDARD:
                return self.viewers_standard_s
