"""Every word that programs rely on: reasons of events, conditions and health, faults, operations, actions.

A word is declared here, once, with the sentence that the documentation gives it, and used by its member. Its text is
stored and shown to callers, so a text that was given out keeps its meaning. The member's name is ours and may change.
`docs/events.md`, `docs/health.md` and `docs/explain.md` have tables made of these classes, and tests hold them equal.

Codes of causes are declared with their remedies in `explain/causes.py`, reasons of refused RPCs in `errors.py`, those
of decisions about the delivery in `delivery.py`.
"""

from service.domain.words import Word


class Actor(Word):
    """Who made an event happen."""

    CALLER = "caller", "An RPC asked for it."
    RECONCILER = "reconciler", "The service did it, or saw it when it looked."
    WEBHOOK = "webhook", "A provider told it in a webhook."
    PROBER = "prober", "The prober saw it in the playlist that players get."


class EventReason(Word):
    """What happened, as an entry of the story of one broadcast."""

    CREATED = "CREATED", "CreateBroadcast was called. Nothing exists at the providers yet."
    START_REQUESTED = "START_REQUESTED", "StartBroadcast was called."
    SCHEDULE_BEGUN = "SCHEDULE_BEGUN", "The scheduled time is near: it is made ready. The message is that time."
    ON_AIR_REQUESTED = "ON_AIR_REQUESTED", "SetOnAir put it on air."
    OFF_AIR_REQUESTED = "OFF_AIR_REQUESTED", "SetOnAir took it off air."
    UPDATED = "UPDATED", "UpdateBroadcast changed the fields that the message names."
    DESTINATION_ADD_REQUESTED = "DESTINATION_ADD_REQUESTED", "AddDestination was called, with this name."
    DESTINATION_REMOVE_REQUESTED = "DESTINATION_REMOVE_REQUESTED", "RemoveDestination was called, with this name."
    STOP_REQUESTED = "STOP_REQUESTED", "StopBroadcast was called. The message is the caller's note."
    DELETED = "DELETED", "DeleteBroadcast was called."
    REMOVAL_REQUESTED = (
        "REMOVAL_REQUESTED",
        "RemoveParticipant puts somebody out of the room now. The message is the identity and the caller's note.",
    )
    MUTE_REQUESTED = (
        "MUTE_REQUESTED",
        "MuteParticipant mutes tracks now. The message is the identity, the tracks and the caller's note.",
    )
    UNMUTE_REQUESTED = (
        "UNMUTE_REQUESTED",
        "MuteParticipant unmutes tracks now. The message is the identity, the tracks and the caller's note.",
    )

    STATE_CREATED = "STATE_CREATED", "The state became CREATED."
    STATE_STARTING = "STATE_STARTING", "The state became STARTING: room and live stream are being made."
    STATE_READY = "STATE_READY", "The state became READY: room and live stream exist, the host may enter."
    STATE_LIVE = "STATE_LIVE", "The state became LIVE: a viewer who presses play sees moving pictures."
    STATE_INTERRUPTED = "STATE_INTERRUPTED", "The state became INTERRUPTED. The message is the reason."
    STATE_STOPPING = "STATE_STOPPING", "The state became STOPPING: the take-down began."
    STATE_ENDED = "STATE_ENDED", "The state became ENDED: nothing is left running."
    STATE_FAILED = "STATE_FAILED", "The state became FAILED: nothing is left running. The message is the reason."
    STATUS_CHANGED = (
        "STATUS_CHANGED",
        "Conditions or other fields of the status changed. The message says what each is now.",
    )
    ENDING = "ENDING", "The service decided to end the broadcast. The message is the end reason."

    ROOM_CREATED = "ROOM_CREATED", "The room was created. The message is its sid."
    ROOM_DELETED = "ROOM_DELETED", "The room was seen gone after it had been deleted."
    ROOM_LOST = "ROOM_LOST", "The room is gone, and the service had not deleted it."
    ROOM_FORGOTTEN = "ROOM_FORGOTTEN", "No list has the room any more, and a create answers with it."
    ROOM_DESERTED = "ROOM_DESERTED", "A room that cannot be deleted is empty: it closes by itself."
    HOST_PUBLISHING = "HOST_PUBLISHING", "Somebody publishes in the room."
    HOST_STOPPED = "HOST_STOPPED", "Nobody publishes in the room any more."

    STREAM_CREATED = "STREAM_CREATED", "The live stream was created. The message is its id."
    STREAM_ADOPTED = "STREAM_ADOPTED", "The live stream of a create without an answer was found by its mark."
    STREAM_SURPLUS = "STREAM_SURPLUS", "A second live stream with the same mark was found, and will be deleted."
    STREAM_DISABLED = "STREAM_DISABLED", "The live stream was disabled: it takes no encoder any more."
    STREAM_DELETED = "STREAM_DELETED", "The live stream was seen gone after it had been deleted."
    STREAM_LOST = "STREAM_LOST", "The live stream is gone, and the service had not deleted it."
    STREAM_WRITTEN_OFF = "STREAM_WRITTEN_OFF", "A create without an answer left no live stream within its grace."
    STREAM_ACTIVE = "STREAM_ACTIVE", "The live stream gets media."
    STREAM_IDLE = "STREAM_IDLE", "The live stream gets no media any more."
    STREAM_UNKNOWN = "STREAM_UNKNOWN", "The live stream shows a status that the service does not know."
    STREAM_DISABLED_OUTSIDE = "STREAM_DISABLED_OUTSIDE", "Somebody else disabled the live stream."
    STREAM_ENABLED_OUTSIDE = "STREAM_ENABLED_OUTSIDE", "Somebody else enabled the live stream."
    STREAM_CUT = "STREAM_CUT", "The live stream was disabled and enabled again, to cut off a connected encoder."
    STREAM_TAKEN = "STREAM_TAKEN", "A live stream that was made ahead was taken. The message is its id."
    STREAM_NAMED = "STREAM_NAMED", "A live stream that was made ahead got the mark and the names of its broadcast."
    TITLE_SET = "TITLE_SET", "The live stream was given another title, for the recordings that begin from now on too."
    KEY_RESET = "KEY_RESET", "The stream key was reset: an egress with the old key cannot connect any more."
    KEY_RESET_OUTSIDE = "KEY_RESET_OUTSIDE", "Somebody else reset the stream key."

    EGRESS_STARTED = "EGRESS_STARTED", "An egress was started. The message is its id."
    EGRESS_ADOPTED = "EGRESS_ADOPTED", "The egress of a start without an answer was found by its key."
    EGRESS_SURPLUS = "EGRESS_SURPLUS", "An egress that no row knows was found in the room, and will be stopped."
    EGRESS_ACTIVE = "EGRESS_ACTIVE", "The egress is recording the room."
    EGRESS_CONNECTED = "EGRESS_CONNECTED", "The egress is connected to the live stream."
    EGRESS_STOP_SENT = "EGRESS_STOP_SENT", "The egress was told to stop. The message says why."
    EGRESS_STOPPED = "EGRESS_STOPPED", "The egress was seen to end after it had been told to stop."
    EGRESS_ENDED = "EGRESS_ENDED", "The egress ended, and the service had not told it to."
    EGRESS_LOST = "EGRESS_LOST", "The egress is not listed any more."
    EGRESS_WRITTEN_OFF = "EGRESS_WRITTEN_OFF", "The egress is given up: it was not seen to start, or to end, in time."
    EGRESS_STILL_RUNS = (
        "EGRESS_STILL_RUNS",
        "An egress that had been given up is still in the room, or may still come into it: it is stopped again.",
    )
    LAYOUT_SET = "LAYOUT_SET", "The egress was given another layout."
    DESTINATION_ADDED = "DESTINATION_ADDED", "The egress was told to push to a destination. The message names it."
    DESTINATION_REMOVED = "DESTINATION_REMOVED", "The egress was told to leave a destination. The message names it."
    DESTINATION_ACTIVE = "DESTINATION_ACTIVE", "A destination gets media. The message names it."
    DESTINATION_FAILED = "DESTINATION_FAILED", "A destination failed. The message names it and says how."
    DESTINATION_RETRIED = "DESTINATION_RETRIED", "The egress was given a destination again that had failed: its name."
    DESTINATION_STOPPED = "DESTINATION_STOPPED", "A destination failed too often: it is not tried again by itself."

    PLAYBACK_STALLED = "PLAYBACK_STALLED", "The playlist that viewers play does not move on."
    PLAYBACK_RESUMED = "PLAYBACK_RESUMED", "The playlist moves on again, or was not looked at lately."
    FALLBACK_ENTERED = "FALLBACK_ENTERED", "Viewers are served by a fallback. The message is the reason and the modes."
    DELIVERY_WANTED = (
        "DELIVERY_WANTED",
        "By the delivery policy an egress is to run, or to run on. The message says why, and what is known of viewers.",
    )
    DELIVERY_IDLE = "DELIVERY_IDLE", "No egress is to run until somebody watches. The message says who was seen last."
    FALLBACK_LEFT = "FALLBACK_LEFT", "The fallback was left. The message is the reason."
    COST_NEAR_CAP = "COST_NEAR_CAP", "The cost is 80 % of the cost cap or more. The message says how much it is."
    COST_CAP_REACHED = "COST_CAP_REACHED", "The cost has reached the cost cap, whose action is WARN: it goes on."
    COST_UNDER_CAP = "COST_UNDER_CAP", "The cost is below 80 % of the cost cap again, because the cap was changed."
    PASS_FAILED = (
        "PASS_FAILED",
        "The service's own work on the broadcast failed, by a bug or for want of a key. It is tried again.",
    )
    PASS_RECOVERED = "PASS_RECOVERED", "The service's own work on the broadcast goes on."
    CALL_FAILED = "CALL_FAILED", "A call of a provider failed in a way that differs from the last one."

    RECORDING_STARTED = "RECORDING_STARTED", "A local recording was started. The message is its egress id."
    RECORDING_ADOPTED = "RECORDING_ADOPTED", "The local recording of a start without an answer was found by its file."
    RECORDING_WRITTEN = "RECORDING_WRITTEN", "A local recording ended and its file is in the storage."
    RECORDING_FAILED = "RECORDING_FAILED", "A local recording ended without a file."
    RECORDING_LOST = "RECORDING_LOST", "A local recording is not listed any more."
    RECORDING_WRITTEN_OFF = "RECORDING_WRITTEN_OFF", "A local recording is given up: its start or end was not seen."
    RECORDINGS_KEPT = "RECORDINGS_KEPT", "The recordings of the live stream were listed. The message is their number."
    RECORDINGS_DISCARDED = "RECORDINGS_DISCARDED", "A recording was deleted by policy DISCARD. The message is its id."
    RECORDING_READY = "RECORDING_READY", "A recording can be played."
    RECORDING_ERRORED = "RECORDING_ERRORED", "A recording could not be made."
    UPLOAD_CREATED = "UPLOAD_CREATED", "A local recording was handed over to become an asset. The message is its id."
    UPLOAD_ADOPTED = "UPLOAD_ADOPTED", "The asset of a hand-over without an answer was found by its mark."
    UPLOAD_ERRORED = "UPLOAD_ERRORED", "An asset could not be made of a local recording, and is tried again."
    UPLOAD_IMPOSSIBLE = "UPLOAD_IMPOSSIBLE", "A local recording cannot be handed over: no storage is configured."
    UPLOAD_WRITTEN_OFF = "UPLOAD_WRITTEN_OFF", "A hand-over without an answer left no asset within its grace."


class Fault(Word):
    """Why an egress or a local recording counts as failed. No fault: it runs, or ended because it was not wanted."""

    NONE = "", "It runs, or was stopped because it was not wanted."
    START_TIMEOUT = "START_TIMEOUT", "it did not start in time"
    START_LOST = "START_LOST", "its start was not answered, and nobody saw it"
    END_TIMEOUT = "END_TIMEOUT", "it began to end and never did"
    DISCONNECTED = "DISCONNECTED", "its connection to the live stream failed"
    NOT_CONNECTED = "NOT_CONNECTED", "it never got its connection to the live stream"
    NO_MEDIA = "NO_MEDIA", "the live stream got no media of it"
    INGEST_LOST = "INGEST_LOST", "it said that it sends, and nothing arrived any more"
    STALLED = "STALLED", "it sent while viewers got nothing new"
    GHOST = "GHOST", "it is listed as active and is not in its room: its worker is gone, its record stays for ever"
    NOT_STOPPED = "NOT_STOPPED", "it was not wanted any more, and was not seen to end"
    LOST = "LOST", "it is not listed any more"
    COMPLETE = "COMPLETE", "it ended as if it had been told to"
    FAILED = "FAILED", "it failed"
    ABORTED = "ABORTED", "it was aborted before it began"
    LIMIT_REACHED = "LIMIT_REACHED", "it ran into the provider's limit of a session"
    NOT_SENT = "NOT_SENT", "its start was not sent: the provider of rooms could not be reached"
    REFUSED = "REFUSED", "its start was refused for what it asks"
    MISSING = "MISSING", "its start was refused: its room does not exist"
    CREDENTIALS = "CREDENTIALS", "its start was refused: the credentials of the service are not accepted"
    THROTTLED = "THROTTLED", "its start was refused: there were too many requests"
    UNAVAILABLE = "UNAVAILABLE", "its start was refused for now"

    @property
    def mistrusted(self) -> bool:
        """Whether an egress that was stopped for it does not do what it says. Such an egress may drain for long, or
        answer nothing, so its end is not waited for: it is fenced, and its successor starts beside it.
        """
        return self in _MISTRUSTED


_MISTRUSTED = frozenset(
    {
        Fault.NO_MEDIA,
        Fault.INGEST_LOST,
        Fault.STALLED,
        Fault.GHOST,
        Fault.NOT_CONNECTED,
        Fault.END_TIMEOUT,
        Fault.NOT_STOPPED,
    }
)


class Operation(Word):
    """What a provider is asked to do. An adapter maps its own call to one of these; the text is in `last_error`."""

    CREATE_ROOM = "CreateRoom", "Create the room."
    LIST_ROOMS = "ListRooms", "List rooms."
    LIST_PARTICIPANTS = "ListParticipants", "List who is in a room, and what each publishes."
    REMOVE_PARTICIPANT = "RemoveParticipant", "Put a participant out of a room, as a caller asked."
    MUTE_TRACK = "MutePublishedTrack", "Mute or unmute a track of a participant, as a caller asked."
    DELETE_ROOM = "DeleteRoom", "Delete the room."
    START_EGRESS = "StartRoomCompositeEgress", "Start an egress, to RTMP addresses or into a file."
    LIST_EGRESSES = "ListEgress", "List egresses."
    SET_LAYOUT = "UpdateLayout", "Give an egress another layout."
    SET_OUTPUTS = "UpdateStream", "Add destinations to an egress, or remove them."
    STOP_EGRESS = "StopEgress", "Stop an egress."

    CREATE_STREAM = "create_live_stream", "Create the live stream."
    GET_STREAM = "get_live_stream", "Look at the live stream."
    LIST_STREAMS = "list_live_streams", "List live streams."
    RESET_KEY = "reset_stream_key", "Reset the stream key."
    ENABLE_STREAM = "enable_live_stream", "Let the live stream take encoders."
    DISABLE_STREAM = "disable_live_stream", "Let the live stream take no encoder, and cut off a connected one."
    COMPLETE_STREAM = "signal_live_stream_complete", "Say that the show is over."
    SET_TITLE = "update_live_stream", "Give the live stream another title."
    DELETE_STREAM = "delete_live_stream", "Delete the live stream."
    CREATE_ASSET = "create_asset", "Hand over a file of our storage to become an asset."
    GET_ASSET = "get_asset", "Look at a recording."
    LIST_ASSETS = "list_assets", "List recordings."
    DELETE_ASSET = "delete_asset", "Delete a recording."

    LOOK_AT_PLAYLIST = "look", "Fetch the playlist that players get."
    COUNT_VIEWERS = "counts", "Ask how many viewers' players report."

    @property
    def starts_egress(self) -> bool:
        """Whether this is a start of an egress, after which an egress may run without an answer."""
        return self is Operation.START_EGRESS


class Blocked(Word):
    """Why no egress is started now, although one is wanted. Shown as the reason of EGRESS_RUNNING."""

    NOTHING = "", "Nothing holds up a start."
    START_LIMIT = "START_LIMIT", "Too many egresses failed, or were started, lately."
    BACK_OFF = "BACK_OFF", "The last one failed, and starts are spread."
    PREVIOUS_ENDING = "PREVIOUS_ENDING", "The previous one may still publish."
    CUTTING_OFF = "CUTTING_OFF", "An encoder that may still be connected is being cut off."
    FENCING = "FENCING", "The stream key is being reset, so that the previous start cannot publish."


class FallbackReason(Word):
    """Why viewers are served by a fallback, or why it was left."""

    NONE = "", "It was never used."
    EGRESS_FAILING = "EGRESS_FAILING", "Egresses kept failing and nothing was playable."
    STREAMS_UNREACHABLE = "MUX_UNREACHABLE", "The provider of live streams did not answer for too long."
    RETURNED = "RETURNED", "The normal way was healthy for long enough."
    OFF_AIR = "OFF_AIR", "The broadcast was taken off air, or nobody watches any more (ON_DEMAND)."


class Action(Word):
    """What the service does next: the foremost step of the plan, or what it waits for."""

    NONE = "NONE", "Nothing."
    LOOK_AGAIN = "LOOK_AGAIN", "Look at the providers again."
    RETRY = "RETRY", "Try again what failed."
    WAIT_FOR_HOST = "WAIT_FOR_HOST", "Wait for a host to publish."
    WAIT_FOR_ON_AIR = "WAIT_FOR_ON_AIR", "Wait for SetOnAir."
    WAIT_FOR_VIEWER = "WAIT_FOR_VIEWER", "Wait for somebody who watches."
    WAIT_FOR_EGRESS = "WAIT_FOR_EGRESS", "Wait for the egress to become active."
    WAIT_FOR_CONNECTION = "WAIT_FOR_CONNECTION", "Wait for the egress to connect to the live stream."
    WAIT_FOR_MEDIA = "WAIT_FOR_MEDIA", "Wait for media at the live stream, or for the playlist to move on."
    WAIT_FOR_END = "WAIT_FOR_END", "Wait for something to end."
    STOP_GHOST = "STOP_GHOST", "Stop an egress that is listed and not in its room."

    CREATE_ROOM = "CREATE_ROOM", "Create the room."
    DELETE_ROOM = "DELETE_ROOM", "Delete the room."
    CREATE_STREAM = "CREATE_STREAM", "Create the live stream."
    DISABLE_STREAM = "DISABLE_STREAM", "Disable the live stream."
    SETTLE_RECORDINGS = "SETTLE_RECORDINGS", "List the recordings, or discard them."
    DELETE_STREAM = "DELETE_STREAM", "Delete the live stream."
    RESET_KEY = "RESET_KEY", "Reset the stream key."
    CUT_STREAM = "CUT_STREAM", "Cut off a connected encoder."
    START_EGRESS = "START_EGRESS", "Start an egress."
    STOP_EGRESS = "STOP_EGRESS", "Stop an egress."
    SET_TITLE = "SET_TITLE", "Give the live stream another title."
    SET_LAYOUT = "SET_LAYOUT", "Give the egress another layout."
    SET_DESTINATIONS = "SET_DESTINATIONS", "Add destinations to the egress, or remove them."
    START_RECORDING = "START_RECORDING", "Start a local recording."
    STOP_RECORDING = "STOP_RECORDING", "Stop a local recording."
    UPLOAD_RECORDING = "UPLOAD_RECORDING", "Hand over a local recording to become an asset."
    DELETE_UPLOAD = "DELETE_UPLOAD", "Delete an asset that could not be made."
    SET_FALLBACK = "SET_FALLBACK", "Enter or leave a fallback."
    TELL_COST = "TELL_COST", "Tell how near the cost is to the cost cap."
    SET_DELIVERY = "SET_DELIVERY", "Decide whether an egress is to run for viewers."
    WRITE_OFF = "WRITE_OFF", "Give up something that was not seen in time."
    END_BROADCAST = "END_BROADCAST", "End the broadcast."
    BEGIN_SCHEDULED = "BEGIN_SCHEDULED", "Make room and live stream ahead of the scheduled time."


class ConditionReason(Word):
    """Why a condition of the status is met, not met or unknown. A status of the egress and `Blocked` are such too."""

    PRESENT = "PRESENT", "It exists."
    ABSENT = "ABSENT", "It does not exist."
    UNKNOWN = "UNKNOWN", "Its create or start was not answered: it is looked for."
    DELETING = "DELETING", "It is being deleted."
    NOT_OBSERVED = "NOT_OBSERVED", "It was not looked at yet."
    NOT_LISTED = "NOT_LISTED", "It is not listed any more, and whether it exists is not known: it is asked for again."
    FORGOTTEN = "FORGOTTEN", "No list has it any more, and a create answers with it: it is there, and cannot be seen."
    ROOMS_UNREACHABLE = "LIVEKIT_UNREACHABLE", "The provider of rooms does not answer."
    STREAMS_UNREACHABLE = "MUX_UNREACHABLE", "The provider of live streams does not answer."
    ROOMS_CREDENTIALS = "LIVEKIT_CREDENTIALS", "The provider of rooms answers, and refuses our credentials."
    STREAMS_CREDENTIALS = "MUX_CREDENTIALS", "The provider of live streams answers, and refuses our credentials."
    NO_ROOM = "NO_ROOM", "There is no room."
    NO_HOST = "NO_HOST", "Nobody publishes in the room."
    PUBLISHING = "PUBLISHING", "Somebody publishes in the room."
    NOT_RUNNING = "NOT_RUNNING", "No egress runs."
    NO_VIEWER = "NO_VIEWER", "No egress runs because nobody watches (ON_DEMAND): the next viewer starts one."
    STARTING = "STARTING", "The egress is not active yet."
    CONNECTING = "CONNECTING", "The egress connects to the live stream, or to the destination."
    DELIVERING = "DELIVERING", "The egress is connected to the live stream."
    DISCONNECTED = "DISCONNECTED", "The connection of the egress to the live stream failed."
    STOPPING = "STOPPING", "The egress was told to stop."
    STOP_FAILED = "STOP_FAILED", "The egress was told to stop, and the calls fail: it may still run."
    NO_STREAM = "NO_STREAM", "There is no live stream."
    ACTIVE = "ACTIVE", "The live stream gets media."
    IDLE = "IDLE", "The live stream gets no media."
    DISABLED = "DISABLED", "The live stream is disabled."
    PLAYLIST_STALLED = "PLAYLIST_STALLED", "The playlist does not move on."
    PLAYBACK_UNREACHABLE = "PLAYBACK_UNREACHABLE", "The service cannot see the playlist: the playback edge fails."
    SIGNED = "SIGNED", "The playlist is signed, and the service has no token to look at it: nobody knows what it shows."
    PLAYING = "PLAYING", "A viewer who presses play sees moving pictures."
    NOT_STARTED = "NOT_STARTED", "StartBroadcast was not called."
    SCHEDULED = "SCHEDULED", "It waits for its scheduled time."


class HealthReason(Word):
    """Why a part of the chain is as healthy as it is. A `Fault` and a state of a destination are such too."""

    NOT_STARTED = "NOT_STARTED", "StartBroadcast was not called."
    OVER = "OVER", "The broadcast is over."
    STOPPING = "STOPPING", "It is being taken down."
    STOP_FAILED = "STOP_FAILED", "It is to end, and the calls for it fail: it still runs."
    NOT_OBSERVED = "NOT_OBSERVED", "It was not looked at lately."
    SERVICE_FAULT = "SERVICE_FAULT", "The service's own work on the broadcast fails, so nobody looks or acts."
    NOT_LISTED = "NOT_LISTED", "It is not listed any more, and whether it exists is not known: it is asked for again."
    ROOMS_UNREACHABLE = "LIVEKIT_UNREACHABLE", "The provider of rooms does not answer."
    STREAMS_UNREACHABLE = "MUX_UNREACHABLE", "The provider of live streams does not answer."
    ROOMS_CREDENTIALS = "LIVEKIT_CREDENTIALS", "The provider of rooms answers, and refuses our credentials."
    STREAMS_CREDENTIALS = "MUX_CREDENTIALS", "The provider of live streams answers, and refuses our credentials."
    CREATING = "CREATING", "It is being made."
    UNANSWERED = "UNANSWERED", "Its create was not answered: it may exist or not."
    CREATE_FAILED = "CREATE_FAILED", "The calls to make it fail."
    LOST = "LOST", "It is gone, and the service had not removed it."
    PRESENT = "PRESENT", "It exists."
    NO_ROOM = "NO_ROOM", "There is no room."
    WAITING_FOR_HOST = "WAITING_FOR_HOST", "No host has published yet."
    HOST_LEFT = "HOST_LEFT", "Nobody publishes any more, and a host may come back."
    PUBLISHING = "PUBLISHING", "A host publishes."
    NO_VIDEO = "NO_VIDEO", "A host publishes no picture."
    HOST_MUTED = "HOST_MUTED", "Every camera or every microphone is muted."
    UPLINK_POOR = "UPLINK_POOR", "The host's browser reports a poor or lost connection."
    STARTING = "STARTING", "The egress is being started."
    STARTING_SLOWLY = "STARTING_SLOWLY", "The egress takes longer than usual to become active."
    CONNECTING = "CONNECTING", "The egress connects to the live stream."
    NOT_CONNECTED = "NOT_CONNECTED", "The egress runs and has no connection to the live stream."
    DISCONNECTED = "DISCONNECTED", "The connection to the live stream broke."
    DELIVERING = "DELIVERING", "The egress is connected to the live stream."
    NOT_IN_ROOM = "NOT_IN_ROOM", "The egress is listed as active and is not in the room."
    ENDING = "ENDING", "The egress is ending, and the service had not told it to."
    ENDED = "ENDED", "It ended."
    NOT_WANTED = "NOT_WANTED", "No egress is wanted now."
    NOT_ON_AIR = "NOT_ON_AIR", "It waits for SetOnAir, or the playlist is not there yet."
    NO_VIEWER = "NO_VIEWER", "Nobody watches (ON_DEMAND): it is started for the next viewer."
    IDLE = "IDLE", "Nothing is wanted of it now."
    CUTTING = "CUTTING", "A connected encoder is being cut off."
    DISABLED = "DISABLED", "Somebody else disabled the live stream."
    ACTIVE = "ACTIVE", "The live stream, or the destination, gets media."
    FAILED = "FAILED", "The destination failed, and is tried again."
    STOPPED = "STOPPED", "The destination failed too often, and is not tried again by itself."
    NO_ENCODER = "NO_ENCODER", "Nothing sends to the live stream."
    NO_MEDIA = "NO_MEDIA", "The egress is connected, and no media arrives."
    WAITING_FOR_EGRESS = "WAITING_FOR_EGRESS", "The egress is not connected yet."
    WAITING_FOR_MEDIA = "WAITING_FOR_MEDIA", "The egress is connected, and media should arrive soon."
    DIRECT_WEBRTC = "DIRECT_WEBRTC", "Viewers watch in the room."
    SIGNED = "SIGNED", "The playlist is signed, and the service has no token to look at it."
    PLAYBACK_UNREACHABLE = "PLAYBACK_UNREACHABLE", "The playback edge answers with an error, or not: nobody can see it."
    NOT_THERE = "NOT_THERE", "The playlist does not exist. PLAYBACK_UNREACHABLE is told instead."
    REFUSED = "REFUSED", "The playlist is answered with an error. PLAYBACK_UNREACHABLE is told instead."
    STALLED = "STALLED", "The playlist does not move on."
    SEEN_ONCE = "SEEN_ONCE", "The playlist was seen once, so nobody knows yet whether it moves on."
    ADVANCING = "ADVANCING", "The playlist moves on."
    NONE = "NONE", "There is no recording."
    DISCARDED = "DISCARDED", "The recording is not kept."
    ERRORED = "ERRORED", "The recording could not be made."
    PREPARING = "PREPARING", "The recording is being prepared."
    READY = "READY", "The recording can be played."
    RECORDING = "RECORDING", "The live stream is being recorded."
    LOCAL_STARTING = "LOCAL_STARTING", "A local recording is being started."
    LOCAL_RECORDING = "LOCAL_RECORDING", "The room is recorded to our own storage."
    LOCAL_FAILED = "LOCAL_FAILED", "The local recording failed."
    NOTHING_TO_WATCH = "NOTHING_TO_WATCH", "Nobody can watch now."
    IN_THE_ROOM = "IN_THE_ROOM", "Viewers watch in the room."
    ROOM_FULL = "ROOM_FULL", "Every place for viewers in the room is taken."
    NOT_MEASURED = "NOT_MEASURED", "Viewers play HLS. `status.audience` tells how many; health does not judge by it."
