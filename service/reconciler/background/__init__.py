"""Tasks beside the passes: observer, prober and sweeper. Each is a loop of rounds, done by one replica at a time.

How to add one (three files; a fourth only if its interval is to be a setting):

1. `service/reconciler/background/<name>.py`: a subclass of `Rounds`.

       class Auditor(Rounds):
           name = "auditor"

           def __init__(self, leases: Leases, ledger: Ledger, *, every: timedelta) -> None:
               super().__init__(leases, every=every)
               self._ledger = ledger

           async def round(self) -> None: ...

   `Rounds` has the interval, the duty (one replica at a time) and the errors: StoreUnavailable is tried again, a bug is
   logged as `auditor_failed`, and neither ends the loop. Set `waits_first` if a round at every start would cost much.

2. `service/app/reconciler.py`: add it to the list that `reconciler_role` hands to ReconcilerRole. It is started,
   cancelled and named from there. With a setting for the interval: declare the field in
   `service/settings/settings.py`, and `make docs`.

3. A test of its `round`, such as tests/integration/test_probes.py has for the prober. `tests/unit/test_rounds.py` holds
   the loop itself and need not change.

Rules for a round:

- It is bounded: pages and batches, never one call a broadcast in a row without a limit.
- It is harmless when it is done twice, or when it is cut off at any line.
- It takes tokens by `Budget.spare` and does without where there is none: stops and starts go first.
- It writes no resource. Only passes do: a round that finds a broadcast in another state than is stored wakes it, and
  the pass looks again.
- ProviderError is expected: log it, and go on with the rest.
"""
