"""Rules about the providers: whether they answer, and changes to our resources that somebody else made."""

from datetime import datetime
from functools import partial

from service.domain.broadcast import EndReason, ProviderTrouble, State
from service.domain.errors import CREDENTIAL_CODES, Outcome
from service.domain.explain.case import Case, Finding, Rule, Weight, with_detail
from service.domain.explain.causes import CauseCode
from service.domain.explain.provider_codes import OF_PROVIDER
from service.domain.explain.rules_end import waits_for_us
from service.domain.facts import Told
from service.domain.health.model import Evidence, noted
from service.domain.provider import OWNER, ROOMS, STREAMS, Provider
from service.domain.reasons import EventReason
from service.domain.resources import Phase, Stream, StreamStatus
from service.domain.sentences import clock, coded, failed_call, failed_operation, no_answer

_THROTTLED = ("resource_exhausted", "429", Outcome.THROTTLED)
_FAILED_BY_PROVIDER = (EndReason.START_TIMEOUT, EndReason.PROVIDER_REFUSED, EndReason.STREAMS_UNREACHABLE)


def unreachable(case: Case, provider: Provider) -> Finding | None:
    """The observer gets no answer from *provider*."""
    outage = case.facts.availability.outages.get(provider)
    if outage is None or case.facts.broadcast.state.over:
        return None
    code, message = _read(provider, outage.code, "")
    return Finding(
        code=code,
        weight=Weight.CERTAIN + 5,
        message=with_detail(f"{message} since {clock(outage.since)}", coded(outage.code, outage.message)),
        evidence=noted(("outage", no_answer(provider, outage), outage.since)),
    )


def failing_call(case: Case, provider: Provider) -> Finding | None:
    """The last call to *provider* failed, and no later one succeeded."""
    trouble = case.facts.broadcast.status.last_error
    if trouble is None or trouble.provider != provider or not _matters(case) or waits_for_us(case, trouble):
        return None
    starts = trouble.operation.starts_egress
    outcome = trouble.outcome
    if starts and outcome not in (Outcome.CREDENTIALS, Outcome.NOT_SENT) and trouble.code not in CREDENTIAL_CODES:
        # The rules about starts have a code for it.
        return None
    evidence: tuple[Evidence, ...] = noted(("last_error", failed_call(trouble), trouble.time))
    if outcome == Outcome.REFUSED:
        return Finding(
            code=OF_PROVIDER[provider].refused,
            weight=Weight.CERTAIN,
            message=with_detail(f"{provider.display_name} refuses {trouble.operation}", trouble.message),
            evidence=evidence,
        )
    if outcome == Outcome.MISSING:
        return None
    code, message = _read(provider, trouble.code, outcome)
    if (since := _answers_again_since(case, provider, trouble)) is not None:
        return Finding(
            code=code,
            weight=Weight.HINT,
            message=(
                f"{provider.display_name} answers again since {clock(since)}, and what failed before is tried again: "
                f"{failed_operation(trouble)}"
            ),
            evidence=(*evidence, *noted(("answering_since", since, since))),
        )
    certain = code is not OF_PROVIDER[provider].unreachable or _holds_up_the_end(case, provider)
    return Finding(
        code=code,
        weight=Weight.CERTAIN if certain else Weight.LIKELY + 5,
        message=f"{message}: {failed_operation(trouble)}",
        evidence=evidence,
    )


def _answers_again_since(case: Case, provider: Provider, trouble: ProviderTrouble) -> datetime | None:
    """Since when *provider* has answered every look, if no call to it has failed since. None: it does not, or one has.

    The time of *trouble* is that of the first of several calls that failed the same way.
    """
    since = case.facts.availability.answering_since.get(provider)
    failed = [
        each.failed_at
        for each in case.facts.resources
        if OWNER[each.kind] is provider and each.failures and each.failed_at is not None
    ]
    return since if since is not None and since > max([trouble.time, *failed]) else None


def _holds_up_the_end(case: Case, provider: Provider) -> bool:
    return case.facts.broadcast.state is State.STOPPING and any(
        resource.failures and resource.phase is not Phase.GONE and OWNER[resource.kind] is provider
        for resource in case.facts.resources
    )


def _matters(case: Case) -> bool:
    broadcast = case.facts.broadcast
    if broadcast.state.over:
        return broadcast.end_reason in _FAILED_BY_PROVIDER
    if case.live:
        # While the show is live the error was overcome, unless a change of the spec has not reached the providers.
        return case.facts.change_held_up
    return True


def _read(provider: Provider, code: str, outcome: str) -> tuple[CauseCode, str]:
    """The code for an answer of *provider*, and the beginning of its message. *code*: the provider's. *outcome*: a
    value of Outcome, or empty for an outage.
    """
    name, codes = provider.display_name, OF_PROVIDER[provider]
    if outcome == Outcome.CREDENTIALS or code in CREDENTIAL_CODES:
        return codes.credentials, f"{name} refuses our credentials"
    if outcome == Outcome.THROTTLED or code in _THROTTLED:
        return codes.throttled, f"{name} answers that these are too many requests"
    return codes.unreachable, f"{name} does not answer as it should"


def room_forgotten(case: Case) -> Finding | None:
    """The provider contradicts itself about the room."""
    room = case.resource_set.room
    if room is None or room.forgotten_at is None:
        return None
    leaving = ", so it cannot be deleted" if room.phase is Phase.DELETING else ""
    return Finding(
        code=CauseCode.ROOM_FORGOTTEN,
        weight=Weight.CERTAIN + 8,
        message=(
            f"{ROOMS.display_name} says that there is no such room{leaving}, and answers a create with it since "
            f"{clock(room.forgotten_at)}: the room is there, and the store of {ROOMS.display_name} lost it."
        ),
        evidence=noted((f"{ROOMS}_room_sid", room.sid, room.forgotten_at)),
    )


def stream_disabled(case: Case) -> Finding | None:
    broadcast, stream = case.facts.broadcast, _last_stream(case)
    if broadcast.spec.test:
        return None
    now = stream is not None and stream.status is StreamStatus.DISABLED and not (stream.disabled or stream.cutting)
    if broadcast.end_reason is not EndReason.STREAM_DISABLED and not (now and case.wanted):
        return None
    told = case.facts.last(EventReason.STREAM_DISABLED_OUTSIDE)
    return Finding(
        code=CauseCode.STREAM_DISABLED_OUTSIDE,
        weight=Weight.CERTAIN + 5,
        message=f"The live stream was disabled at {STREAMS.display_name}, and not by us.",
        evidence=_about(stream, told),
    )


def stream_deleted(case: Case) -> Finding | None:
    broadcast, stream = case.facts.broadcast, _last_stream(case)
    told = case.facts.last(EventReason.STREAM_LOST)
    gone = case.wanted and broadcast.ready_time is not None and told is not None and case.resource_set.stream is None
    if broadcast.end_reason is not EndReason.STREAM_LOST and not gone:
        return None
    return Finding(
        code=CauseCode.STREAM_DELETED_OUTSIDE,
        weight=Weight.CERTAIN + 5,
        message=f"The live stream was deleted at {STREAMS.display_name}, and not by us.",
        evidence=_about(stream, told),
    )


def key_reset(case: Case) -> Finding | None:
    stream = _last_stream(case)
    if stream is None or case.live or not case.wanted or stream.phase is not Phase.PRESENT:
        return None
    told = case.recent(EventReason.KEY_RESET_OUTSIDE, before_s=60.0)
    if told is None:
        return None
    return Finding(
        code=CauseCode.KEY_RESET_OUTSIDE,
        weight=Weight.SEEN + 10,
        message=(
            f"The stream key was reset at {STREAMS.display_name}, and not by us: "
            "what sends with the old one is refused."
        ),
        evidence=noted((f"{STREAMS}_live_stream_id", stream.external_id, None), ("event", told.reason, told.time)),
    )


def _last_stream(case: Case) -> Stream | None:
    return case.resource_set.stream or (case.resource_set.streams[-1] if case.resource_set.streams else None)


def _about(stream: Stream | None, told: Told | None) -> tuple[Evidence, ...]:
    return noted(
        (f"{STREAMS}_live_stream_id", stream.external_id if stream is not None else None, None),
        (
            f"{STREAMS}_status",
            stream.status if stream is not None else None,
            stream.observed_at if stream is not None else None,
        ),
        ("event", told.reason if told is not None else None, told.time if told is not None else None),
    )


_OF_EACH_PROVIDER: tuple[Rule, ...] = tuple(
    partial(rule, provider=provider) for provider in OF_PROVIDER for rule in (unreachable, failing_call)
)
RULES: tuple[Rule, ...] = (*_OF_EACH_PROVIDER, room_forgotten, stream_disabled, stream_deleted, key_reset)
