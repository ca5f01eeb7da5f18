"""One provider call: a span, a duration, and every failure as ProviderError."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry.trace import SpanKind, Status, StatusCode

from service import telemetry
from service.domain.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


@contextmanager
def observed(provider: str, operation: str, failure: Callable[[Exception], ProviderError | None]) -> Generator[None]:
    """*failure* turns what a call raised into a ProviderError; None: it is none of the provider's."""
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
            # The cause's text may hold headers and bodies with secrets in them: it goes no further.
            raise error from None
        finally:
            span.set_attribute("provider.outcome", outcome)
            telemetry.PROVIDER_DURATION.record(
                time.perf_counter() - began,
                {"provider": provider, "operation": operation, "outcome": outcome},
            )
