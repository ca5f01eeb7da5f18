"""Facts in words for people: a moment, a failed call, an outage. One form for each, in every view of a broadcast.

A message names a provider by its display name, and a code once: the text of an error often begins with its code.
"""

from datetime import datetime

from service.domain.broadcast import ProviderTrouble
from service.domain.provider import Provider
from service.domain.situation import Outage


def clock(moment: datetime) -> str:
    """The time of day of *moment*, which is in UTC."""
    return f"{moment:%H:%M:%S} UTC"


def dated(moment: datetime) -> str:
    """Day and time of *moment*, which is in UTC, for a text that is stored and may be read days later."""
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def coded(code: str, message: str) -> str:
    """*message* behind its *code*, which is left out where the message has it. Empty: there is neither."""
    if not message or code in message.partition(":")[0].split():
        return message or code
    return f"{code} {message}".strip()


def failed_call(trouble: ProviderTrouble) -> str:
    """The provider, the operation and the error, such as `LiveKit CreateRoom: 503 Service Unavailable`."""
    return f"{trouble.provider.display_name} {failed_operation(trouble)}"


def failed_operation(trouble: ProviderTrouble) -> str:
    """The same without the provider, where the sentence names it already."""
    error = coded(trouble.code, trouble.message)
    return f"{trouble.operation}: {error}" if error else str(trouble.operation)


def no_answer(provider: Provider, outage: Outage) -> str:
    """That *provider* does not answer, or that it refuses our credentials, since when and how."""
    if outage.refuses_us:
        return f"{provider.display_name} refuses our credentials since {clock(outage.since)}"
    how = coded(outage.code, outage.message)
    return f"{provider.display_name} does not answer since {clock(outage.since)}" + (f": {how}" if how else "")
