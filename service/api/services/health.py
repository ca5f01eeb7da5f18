"""Health and explanation of broadcasts, computed from the database alone. No provider is called."""

from collections.abc import AsyncIterator
from typing import Final

from google.protobuf.duration_pb2 import Duration

from broadcast.v1 import broadcast_service_pb2 as rpc
from service.api.identities import check_reporter_identity
from service.api.messages.broadcast import given_filter
from service.api.messages.health import explanation_message, given_stats, health_message
from service.api.messages.times import given_duration
from service.api.streams.health import HealthWatches
from service.domain.explain.explain import explain
from service.domain.health.health_of import health_of
from service.domain.timing import Timing
from service.store.broadcasts import Broadcasts
from service.store.health_facts import HealthFacts
from service.store.measurements.host_stats import HostReports

REPORT_EVERY_S: Final = 5
_DEFAULT_INTERVAL_S = 5.0


class HealthApi:
    def __init__(self, *, broadcasts: Broadcasts, facts: HealthFacts, reports: HostReports, timing: Timing) -> None:
        """*timing*: the same as the reconciler's, because the next action of the reconciler is told."""
        self._facts = facts
        self._reports = reports
        self._timing = timing
        self.watches = HealthWatches(broadcasts, facts, timing)

    async def get(self, request: rpc.GetBroadcastHealthRequest) -> rpc.GetBroadcastHealthResponse:
        facts = await self._facts.facts(request.broadcast_id)
        return rpc.GetBroadcastHealthResponse(health=health_message(health_of(facts, self._timing)))

    async def explain(self, request: rpc.ExplainBroadcastRequest) -> rpc.ExplainBroadcastResponse:
        facts = await self._facts.facts(request.broadcast_id)
        return rpc.ExplainBroadcastResponse(explanation=explanation_message(explain(facts, self._timing)))

    async def report(self, request: rpc.ReportHostStatsRequest) -> rpc.ReportHostStatsResponse:
        check_reporter_identity(request.identity, "identity")
        await self._reports.report(request.broadcast_id, request.identity, given_stats(request.stats))
        return rpc.ReportHostStatsResponse(report_interval=Duration(seconds=REPORT_EVERY_S))

    def watch(self, request: rpc.WatchHealthRequest) -> AsyncIterator[bytes]:
        interval = given_duration(request.interval, "interval").total_seconds()
        return self.watches.follow(given_filter(request.filter), interval or _DEFAULT_INTERVAL_S)
