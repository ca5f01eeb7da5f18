"""Each role runs without the others: they meet in Postgres."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from datetime import timedelta

from service.app.api import ApiRole
from service.app.reconciler import reconciler_role
from service.app.shared import Shared, shared
from service.app.webhooks import webhooks_role
from service.domain.broadcast import Spec, State
from service.domain.errors import Outcome
from service.domain.lifecycle import start
from service.domain.provider import Provider
from service.reconciler import background
from service.reconciler.background.rounds import Rounds
from service.settings.settings import Settings, from_environment
from service.store.broadcasts import Request
from tests.stack import Stack, running_stack
from tests.waiting import eventually

NOBODYS = Request(id="", method="Test", digest=b"")


async def _started(common: Shared) -> None:
    await common.broadcasts.create("show", Spec(), {}, {}, NOBODYS)
    await common.broadcasts.change("show", start, NOBODYS)


def _background() -> list[type[Rounds]]:
    """Every background task that a module declares."""
    for module in pkgutil.iter_modules(background.__path__, f"{background.__name__}."):
        importlib.import_module(module.name)
    return [each for each in Rounds.__subclasses__() if each.__module__.startswith(background.__name__)]


def _settings(stack: Stack) -> Settings:
    return from_environment({**stack.environment, "GRPC_PORT": "0", "HTTP_PORT": "0"})


async def test_a_reconciler_alone_brings_a_broadcast_up_and_drains(database_url: str) -> None:
    async with (
        running_stack(database_url, webhooks=False) as stack,
        shared(_settings(stack)) as common,
        reconciler_role(common, []) as role,
        asyncio.TaskGroup() as tasks,
    ):
        rounds = role.start(tasks)
        assert sorted(task.get_name() for task in rounds) == sorted(each.name for each in _background())
        await _started(common)

        async def ready() -> bool:
            return (await common.broadcasts.get("show")).state is State.READY

        await eventually(ready)
        await role.drain(timedelta(seconds=5))
        assert not any(task.done() for task in rounds)
        for task in rounds:
            task.cancel()


async def test_callers_and_webhooks_are_served_without_a_reconciler(database_url: str) -> None:
    woken: list[bool] = []
    async with (
        running_stack(database_url, webhooks=False) as stack,
        shared(_settings(stack)) as common,
        webhooks_role(common) as webhooks,
    ):
        api = ApiRole(common, webhooks, lambda: woken.append(True))
        http_port, grpc_port = await webhooks.start(), await api.start()
        async with stack.http.get(f"http://127.0.0.1:{http_port}/readyz") as answer:
            assert answer.status == 200
        common.providers.refusals.note(Provider.MUX, Outcome.CREDENTIALS)
        async with stack.http.get(f"http://127.0.0.1:{http_port}/readyz") as answer:
            told = "Mux refuses the credentials of this replica (MUX_TOKEN_ID, MUX_TOKEN_SECRET)\n"
            assert (answer.status, await answer.text()) == (200, f"ok\n{told}")
        client = await stack.client(f"127.0.0.1:{grpc_port}")
        await client.create(broadcast_id="show")
        started = await client.start("show")
        assert (started.broadcast.id, woken) == ("show", [True])
        await api.drain(timedelta(seconds=1))
        async with stack.http.get(f"http://127.0.0.1:{http_port}/readyz") as answer:
            assert answer.status == 200


async def test_a_role_that_was_never_started_is_left_without_a_word(database_url: str) -> None:
    async with (
        running_stack(database_url, webhooks=False) as stack,
        shared(_settings(stack)) as common,
        webhooks_role(common),
        reconciler_role(common, []) as role,
    ):
        await role.drain(timedelta(seconds=1))
