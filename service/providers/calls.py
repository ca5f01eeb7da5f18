"""Every provider call goes through `traced_call`: one span, one duration in the metrics, and every failure of the
provider as a ProviderError.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry.trace import SpanKind, Status, StatusCode

from service import telemetry
from service.domain.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from service.domain.provider import Provider
    from service.domain.reasons import Operation


@contextmanager
def traced_call(
    provider: Provider, operation: Operation, failure: Callable[[Exception], ProviderError | None]
) -> Generator[None]:
    """Around one call. *failure* makes a ProviderError of the exception that the call raised, or answers None where the
    exception is no failure of the provider but a bug of ours, which is raised unchanged.
    """
    began = time.perf_counter()
    outcome = "ok"
    with telemetry.tracer.start_as_current_span(
        f"{provider} {operation}", kind=SpanKind.CLIENT, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield
        except Exception as raised:
            error = raised if isinstance(raised, ProviderError) else failure(raised)
            if error is None:
                outcome = "bug"
                raise
            outcome = error.outcome
            span.set_attribute("provider.code", error.code)
            span.set_status(Status(StatusCode.ERROR, error.outcome))
            if error is raised:
                raise
            # The text of the cause may have headers and bodies with secrets in it, so the cause goes no further.
            raise error from None
        finally:
            span.set_attribute("provider.outcome", outcome)
            telemetry.PROVIDER_DURATION.record(
                time.perf_counter() - began,
                {"provider": provider, "operation": operation, "outcome": outcome},
            )
