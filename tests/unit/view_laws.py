"""What must hold between the four views of a broadcast, whatever its situation is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from broadcast.v1 import health_pb2 as health_pb
from service.domain.facts import Facts
from service.domain.provider import Provider, health_reason_away
from service.domain.timing import Timing
from tests.unit.views import Views, views_of

FRESH: Final = timedelta(seconds=30)
WRONG: Final = ("DOWN", "DEGRADED")
PART_OF: Final = {
    "ROOM_READY": "ROOM",
    "HOST_PUBLISHING": "HOST",
    "EGRESS_RUNNING": "EGRESS",
    "INGEST_ACTIVE": "INGEST",
}
"""The part of the chain that each condition is about."""

Law: TypeAlias = Callable[[Views, Facts], Iterator[str]]


def broken(facts: Facts, timing: Timing, laws: tuple[Law, ...] | None = None) -> list[str]:
    """The laws that the views of *facts* break. *laws*: None for all."""
    views = views_of(facts, timing)
    return [f"{law.__name__}: {how}" for law in laws or LAWS for how in law(views, facts)]


def no_cause_means_that_nothing_is_wrong(views: Views, _facts: Facts) -> Iterator[str]:
    if views.causes:
        return
    wrong = [part for part in views.health.parts if views.part_state(part) in WRONG]
    if wrong or views.overall in WRONG or views.state in ("INTERRUPTED", "FAILED"):
        yield f"{views.state}, overall {views.overall}, {[part.reason for part in wrong]} and no cause"


def a_cause_means_that_not_all_is_well(views: Views, _facts: Facts) -> Iterator[str]:
    if views.causes and views.overall == "OK":
        yield f"overall OK, and {views.causes}"


def ok_is_a_show_that_is_on(views: Views, _facts: Facts) -> Iterator[str]:
    if views.overall == "OK" and views.state != "LIVE":
        yield f"overall OK, and {views.state}"


def viewers_see_what_was_seen_lately(views: Views, facts: Facts) -> Iterator[str]:
    if "iewers see the show." not in views.explanation.summary:
        return
    part = views.part("PLAYBACK")
    seen = _moment(part.observed_time)
    if not views.met("PLAYABLE") or views.part_state(part) != "OK" or seen is None or facts.now - seen > FRESH:
        yield f"{views.explanation.summary} PLAYABLE {views.met('PLAYABLE')}, {part.reason}, seen {seen}"


def every_view_tells_the_same_state(views: Views, _facts: Facts) -> Iterator[str]:
    told = {views.get.status.state, views.health.state, views.explanation.state, views.join.state}
    if len(told) > 1:
        yield f"{told}"
    if views.get.status.state_reason != views.health.state_reason:
        yield f"{views.get.status.state_reason} and {views.health.state_reason}"


def the_headline_is_the_first_cause(views: Views, _facts: Facts) -> Iterator[str]:
    causes, summary = views.explanation.causes, views.explanation.summary
    if causes and summary != f"{views.state}: {causes[0].message}":
        yield f"{summary!r} and {causes[0].message!r}"


def a_viewer_who_waits_is_told_the_reason_of_playable(views: Views, _facts: Facts) -> Iterator[str]:
    playable = views.condition("PLAYABLE")
    # Between StartBroadcast and the first pass there are no conditions yet.
    unseen = "NOT_STARTED" if views.state == "CREATED" else "STARTING"
    expected = playable.reason if playable is not None else unseen
    if views.way == "starting" and views.join.starting.reason != expected:
        yield f"{views.join.starting.reason} and {expected}"


def no_viewer_is_promised_a_show_that_nothing_brings(views: Views, _facts: Facts) -> Iterator[str]:
    if not views.join.starting.HasField("eta"):
        return
    if views.met("STREAM_READY") is not True or views.met("HOST_PUBLISHING") is not True:
        yield f"an ETA without a host or a live stream: {views.causes}"
    if views.get.status.HasField("last_error") and views.get.status.last_error.operation.startswith("Start"):
        yield f"an ETA although starts fail: {views.causes}"


def an_outage_is_told_alike(views: Views, facts: Facts) -> Iterator[str]:
    """With one reason and one moment: in the conditions, in the parts, and as a cause."""
    evidence = [each for cause in views.explanation.causes for each in cause.evidence if each.name == "outage"]
    for provider, outage in facts.availability.outages.items():
        reason = str(health_reason_away(Provider(provider), outage))
        conditions = [each for each in views.get.status.conditions if each.reason == reason]
        parts = [part for part in views.health.parts if part.reason == reason]
        for part in parts:
            if _moment(part.since) != outage.since or views.part_state(part) != "UNKNOWN":
                yield f"{reason} of {outage.since}: a part since {_moment(part.since)}"
        for each in conditions:
            if f"{outage.since:%H:%M:%S}" not in each.message and each.message:
                yield f"{reason} of {outage.since}: {each.message}"
        told = [each for each in evidence if _moment(each.time) == outage.since and provider in each.value.lower()]
        if (parts or conditions) and not told:
            yield f"{reason}: {len(parts)} parts, {len(conditions)} conditions, causes {views.causes}"


def a_condition_and_its_part_do_not_contradict(views: Views, facts: Facts) -> Iterator[str]:
    if views.state in ("CREATED", "STOPPING", "ENDED", "FAILED"):
        return
    for type_, name in PART_OF.items():
        condition, part = views.condition(type_), views.part(name)
        state = views.part_state(part)
        if condition is None or _seen_after(part, facts):
            continue
        if views.met(type_) is False and state == "OK":
            yield f"{type_} is not met ({condition.reason}), and {name} is OK ({part.reason})"
        if views.met(type_) is True and state == "DOWN" and part.reason != "DISCONNECTED":
            # That an encoder left only a webhook tells: the status of the live stream lags by its reconnect window.
            yield f"{type_} is met, and {name} is DOWN ({part.reason})"
        if condition.reason == "NOT_LISTED" and state == "OK":
            yield f"{type_} is not listed, and {name} is OK"


def the_last_error_is_quoted_as_it_is(views: Views, _facts: Facts) -> Iterator[str]:
    error = views.get.status.last_error
    quoted = [each for cause in views.explanation.causes for each in cause.evidence]
    quoted += [each for part in views.health.parts for each in part.evidence]
    for each in quoted:
        if each.name == "last_error" and (error.operation not in each.value or each.time != error.time):
            yield f"{each.value!r} and {error.operation} {error.code}"


def every_text_is_written_for_people(views: Views, _facts: Facts) -> Iterator[str]:
    for text in _messages(views):
        if (found := _OF_A_PROGRAM.search(text) or _PROVIDER_AS_STORED.search(text)) is not None:
            yield f"{found.group()!r} in {text!r}"
    for evidence in _evidence(views):
        if (found := _OF_A_PROGRAM.search(evidence.value)) is not None:
            yield f"{found.group()!r} in {evidence.name} {evidence.value!r}"


_OF_A_PROGRAM: Final = re.compile(
    r"\b(True|False|None|UNDECLARED)\b"  # a repr
    r"|datetime\.|\+00:00|\d\.\d{6}|<[A-Z]|\(['\"]|\[['\"]|\w+\.[A-Z]{2}[A-Z_]+\b"
    r"|\b(\w{3,})[: ]+\2\b"  # a word twice, such as a code before a message that begins with it
    r"|: *[.:]|\.\.|  |[ :]$"
)
_PROVIDER_AS_STORED: Final = re.compile(r"\b(livekit|mux)\b(?![_:.])")


def _messages(views: Views) -> Iterator[str]:
    yield views.explanation.summary
    for cause in views.explanation.causes:
        yield from (cause.message, cause.remedy)
    yield from (override.description for override in views.explanation.overrides)
    yield from (part.message for part in views.health.parts)
    yield from (condition.message for condition in views.get.status.conditions)
    yield from (recording.message for recording in views.get.status.recordings)
    yield views.health.next_action.message


def _evidence(views: Views) -> Iterator[health_pb.Evidence]:
    for holder in (*views.explanation.causes, *views.health.parts):
        yield from holder.evidence


def nothing_is_of_the_future(views: Views, facts: Facts) -> Iterator[str]:
    for part in views.health.parts:
        for moment in (_moment(part.since), _moment(part.observed_time)):
            if moment is not None and moment > facts.now:
                yield f"{part.reason} at {moment}, and it is {facts.now}"


def _seen_after(part: health_pb.PartHealth, facts: Facts) -> bool:
    """Whether the part rests on a look of the prober, which may be newer than the row that the conditions are of."""
    return part.part == health_pb.CHAIN_PART_HOST and _moment(part.observed_time) == facts.probe.people_at


def _moment(time: Timestamp) -> datetime | None:
    return time.ToDatetime(tzinfo=UTC) if time.ByteSize() else None


LAWS: tuple[Law, ...] = (
    no_cause_means_that_nothing_is_wrong,
    a_cause_means_that_not_all_is_well,
    ok_is_a_show_that_is_on,
    viewers_see_what_was_seen_lately,
    every_view_tells_the_same_state,
    the_headline_is_the_first_cause,
    a_viewer_who_waits_is_told_the_reason_of_playable,
    no_viewer_is_promised_a_show_that_nothing_brings,
    an_outage_is_told_alike,
    a_condition_and_its_part_do_not_contradict,
    the_last_error_is_quoted_as_it_is,
    every_text_is_written_for_people,
    nothing_is_of_the_future,
)
