-- A row is a broadcast and its entry in the work queue at once, so a wake is a column and cannot get lost.
--
-- A row is claimable when coalesce(lease_until, due_at) <= now(). A wake sets due_at and never touches the lease, so it cannot
-- start a second pass beside one that runs. A claim clears due_at, so a wake during a pass is seen when the lease is given
-- back. The end of a lease makes the row of a dead replica claimable again. At rest both columns are NULL, and the row is not
-- in the index of the queue.
CREATE TABLE broadcast (
  id            text PRIMARY KEY,
  spec          jsonb NOT NULL,
  labels        jsonb NOT NULL DEFAULT '{}',
  -- Stream keys of the destinations, encrypted. Never part of a snapshot in the change log.
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
  -- Every claim adds one, and every write of a pass names the fence of its claim: a pass whose lease was taken over writes
  -- nothing.
  fence         bigint NOT NULL DEFAULT 0,
  -- 0 stop, 1 start, 2 everything else. A replica runs a number of passes of each lane, so no lane starves another.
  lane          smallint NOT NULL DEFAULT 2,
  -- The turn that a budget gave last: a pass that comes back at its turn goes before those that come for the first time.
  turn_at       timestamptz,
  trace_context text
);

CREATE INDEX broadcast_due ON broadcast (lane, coalesce(lease_until, due_at))
  WHERE coalesce(lease_until, due_at) IS NOT NULL;
CREATE INDEX broadcast_listed ON broadcast (create_time DESC, id DESC) WHERE NOT deleted;
CREATE INDEX broadcast_running ON broadcast (id) WHERE target = 'LIVE';

-- A late retry must never restart what was stopped. The code does not write such a change, and the database refuses it.
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

-- A thing at a provider that exists, may exist, or did. The row is committed before the call that creates the thing, so a
-- crash or a lost answer leaves a row to look for it by.
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
-- A thing at a provider belongs to one row. Rooms are named after their broadcasts and need no such rule.
CREATE UNIQUE INDEX resource_external ON resource (kind, external_id) WHERE external_id <> '' AND kind <> 'room';

-- The change log. With a plain sequence a reader loses events: it sees 2, moves on, and never reads 1, which commits later.
-- So revisions come from one counter row, which a transaction locks last and holds until it commits: revision order is commit
-- order.
CREATE TABLE head (
  revision bigint NOT NULL,
  -- Events up to this revision were removed.
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
  -- The broadcast after the transaction, on the last event of the transaction; NULL on the others.
  snapshot     jsonb,
  -- State, labels, owner and deletion before the transaction: a watch needs them to see that a broadcast left its filter.
  previous     jsonb
);
CREATE INDEX event_story ON event (broadcast_id, revision);

-- The request ids of writes, each committed together with the effect of its write, so that a retry finds both or neither.
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
  -- The next free turn of each queue. A caller that finds no token gets a turn, one token after the turn before. There is a
  -- queue for each number of tokens that its callers leave to callers of a higher rank.
  next_turns  timestamptz[] NOT NULL
);

-- Work that one replica does at a time, to save work: two replicas that do the same at once do no harm.
CREATE TABLE duty (
  name        text PRIMARY KEY,
  owner       text NOT NULL,
  lease_until timestamptz NOT NULL
);
