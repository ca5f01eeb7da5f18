-- One row is one broadcast and its place in the work queue at once, so a wake is a column and cannot get lost.
--
-- Claimable when coalesce(lease_until, due_at) <= now(). A wake sets due_at and never touches the lease, so it cannot start a
-- second runner; a claim clears due_at, so a wake during a pass is seen at its release; the end of a lease makes the row of a
-- dead replica claimable again. At rest both are NULL and the row is not in the index.
CREATE TABLE broadcast (
  id            text PRIMARY KEY,
  spec          jsonb NOT NULL,
  labels        jsonb NOT NULL DEFAULT '{}',
  -- Stream keys of the destinations, encrypted. Never part of a snapshot.
  secrets       bytea,
  generation    bigint NOT NULL DEFAULT 1,
  version       bigint NOT NULL DEFAULT 1,
  target        text NOT NULL DEFAULT 'CREATED' CHECK (target IN ('CREATED', 'LIVE', 'ENDED')),
  on_air        boolean NOT NULL DEFAULT false,
  state         text NOT NULL DEFAULT 'CREATED' CHECK (
    state IN ('CREATED', 'STARTING', 'READY', 'LIVE', 'INTERRUPTED', 'STOPPING', 'ENDED', 'FAILED')),
  status        jsonb NOT NULL DEFAULT '{}',
  end_reason    text,
  create_time   timestamptz NOT NULL DEFAULT now(),
  update_time   timestamptz NOT NULL DEFAULT now(),
  start_time    timestamptz,
  ready_time    timestamptz,
  live_time     timestamptz,
  end_time      timestamptz,
  dirty_at      timestamptz,
  deleted       boolean NOT NULL DEFAULT false,
  due_at        timestamptz,
  lease_until   timestamptz,
  lease_owner   text,
  fence         bigint NOT NULL DEFAULT 0,
  -- 0 stop, 1 start, 2 everything else: each lane has its own places in a replica, so none starves another.
  lane          smallint NOT NULL DEFAULT 2,
  -- The turn that a budget gave it last: who comes back at its turn goes before those who come for the first time.
  turn_at       timestamptz,
  trace_context text
);

CREATE INDEX broadcast_due ON broadcast (lane, coalesce(lease_until, due_at))
  WHERE coalesce(lease_until, due_at) IS NOT NULL;
CREATE INDEX broadcast_listed ON broadcast (create_time DESC, id DESC) WHERE NOT deleted;
CREATE INDEX broadcast_running ON broadcast (id) WHERE target = 'LIVE';

-- The promise that a late retry cannot restart what was stopped does not rest on the code alone.
CREATE FUNCTION broadcast_moves_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF array_position(ARRAY['CREATED', 'LIVE', 'ENDED'], NEW.target)
     < array_position(ARRAY['CREATED', 'LIVE', 'ENDED'], OLD.target) THEN
    RAISE EXCEPTION 'target of % moves forward only: % -> %', OLD.id, OLD.target, NEW.target
      USING ERRCODE = 'check_violation';
  END IF;
  IF OLD.state IN ('ENDED', 'FAILED') AND NEW.state <> OLD.state THEN
    RAISE EXCEPTION '% is % for ever', OLD.id, OLD.state USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER broadcast_moves_forward BEFORE UPDATE OF target, state ON broadcast
  FOR EACH ROW EXECUTE FUNCTION broadcast_moves_forward();

-- What exists at the providers, may exist, or did. The row is committed before the call that creates the thing.
CREATE TABLE resource (
  broadcast_id text NOT NULL REFERENCES broadcast (id),
  kind         text NOT NULL CHECK (kind IN ('room', 'stream', 'egress')),
  ordinal      integer NOT NULL,
  phase        text NOT NULL CHECK (phase IN ('intended', 'unknown', 'present', 'deleting', 'gone')),
  external_id  text NOT NULL DEFAULT '',
  intended_at  timestamptz NOT NULL,
  observed_at  timestamptz,
  changed_at   timestamptz NOT NULL,
  failures     integer NOT NULL DEFAULT 0,
  retry_at     timestamptz,
  acked        boolean NOT NULL DEFAULT false,
  refused      boolean NOT NULL DEFAULT false,
  detail       jsonb NOT NULL DEFAULT '{}',
  -- The stream key, encrypted.
  secret       bytea,
  PRIMARY KEY (broadcast_id, kind, ordinal)
);
-- One thing of a provider belongs to one row.
CREATE UNIQUE INDEX resource_external ON resource (kind, external_id) WHERE external_id <> '' AND kind <> 'room';

-- The change log. A plain sequence loses events: a reader that saw 2 moves on, and 1, committed later, is never read.
-- The counter row is taken last in a transaction and held to its commit, so revision order is commit order.
CREATE TABLE head (
  revision bigint NOT NULL,
  -- Everything up to here was removed.
  floor    bigint NOT NULL DEFAULT 0
);
INSERT INTO head (revision) VALUES (0);

CREATE TABLE event (
  revision     bigint PRIMARY KEY,
  broadcast_id text NOT NULL,
  time         timestamptz NOT NULL DEFAULT now(),
  reason       text NOT NULL,
  message      text NOT NULL DEFAULT '',
  actor        text NOT NULL,
  state        text NOT NULL,
  -- The broadcast after the transaction, on the last event of each; NULL on the others.
  snapshot     jsonb,
  -- State, labels and spec.owner_id before the transaction, to tell who leaves a filter and who enters it.
  previous     jsonb
);
CREATE INDEX event_story ON event (broadcast_id, revision);

-- What was asked under which request id, committed together with its effect.
CREATE TABLE request (
  request_id   text NOT NULL,
  method       text NOT NULL,
  digest       bytea NOT NULL,
  broadcast_id text NOT NULL,
  create_time  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (request_id)
);
CREATE INDEX request_age ON request (create_time);

-- The providers' rate limits, shared by all replicas.
CREATE TABLE budget (
  name        text PRIMARY KEY,
  tokens      double precision NOT NULL,
  refilled_at timestamptz NOT NULL,
  -- Who finds no token is told to come back at a time of its own, one token apart; a queue for each number of tokens that
  -- those who wait leave to others.
  next_turns  timestamptz[] NOT NULL
);

-- Work that one replica does at a time. It only saves work: two at once do no harm.
CREATE TABLE duty (
  name        text PRIMARY KEY,
  owner       text NOT NULL,
  lease_until timestamptz NOT NULL
);
