-- What each broadcast is charged for. A row is a fact with a beginning and an end, written in the transaction that writes the
-- resource it follows from, and under the provider's id: writing it again changes nothing.
--
-- An id may be given out again when its broadcast was forgotten, so the time of creation is part of the key. There is no foreign
-- key: the ledger outlives the broadcast.
CREATE TABLE ledger (
  broadcast_id   text NOT NULL,
  broadcast_time timestamptz NOT NULL,
  kind           text NOT NULL,
  -- The provider's id of the egress or of the recording. Of idle times: when they began.
  ref            text NOT NULL,
  tier           text NOT NULL,
  from_time      timestamptz NOT NULL,
  -- NULL: it goes on.
  to_time        timestamptz,
  -- Seconds. NULL: the time from from_time to to_time.
  quantity_s     double precision,
  basis          text NOT NULL,
  PRIMARY KEY (broadcast_id, broadcast_time, kind, ref)
);
CREATE INDEX ledger_time ON ledger (from_time);

-- The broadcasts of the ledger whose rows were removed: what is needed to say whose costs they are.
CREATE TABLE former_broadcast (
  id          text NOT NULL,
  create_time timestamptz NOT NULL,
  owner_id    text NOT NULL,
  labels      jsonb NOT NULL,
  live_time   timestamptz,
  end_time    timestamptz,
  -- Seconds for which viewers watched, of all of them together. NULL: nobody measured.
  viewer_s    double precision,
  forget_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (id, create_time)
);
CREATE INDEX former_broadcast_age ON former_broadcast (forget_time);

-- How near the cost is to the cost cap, as an event told it last.
ALTER TABLE broadcast ADD COLUMN cost_level text NOT NULL DEFAULT 'under';
