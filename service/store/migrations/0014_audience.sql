-- Who watches, counted by sketches: the work of the database grows with broadcasts, not with viewers. A row holds the viewers
-- that one replica saw in one slot of some seconds. The slot begins by the clock of the database. The union of the sketches of
-- all replicas counts each viewer once.
CREATE TABLE audience_slot (
  broadcast_id text NOT NULL,
  slot         timestamptz NOT NULL,
  replica      text NOT NULL,
  -- HLL of Apache DataSketches, compact.
  sketch       bytea NOT NULL,
  -- When the replica saw a viewer of the slot last: the time of the flush that told of it.
  seen_at      timestamptz NOT NULL,
  -- The estimate of this sketch alone, for people who look at the table.
  viewers      integer NOT NULL,
  PRIMARY KEY (broadcast_id, slot, replica)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1);
CREATE INDEX audience_slot_age ON audience_slot (slot);
-- A sketch is as good as random: to compress it costs time and saves nothing.
ALTER TABLE audience_slot ALTER COLUMN sketch SET STORAGE EXTERNAL;

-- What is left of the slots that are over: each is added here by the transaction that deletes it.
CREATE TABLE audience_total (
  broadcast_id text PRIMARY KEY,
  -- Seconds watched, of all viewers together. An estimate.
  viewer_s     double precision NOT NULL DEFAULT 0,
  -- All slots that begin before this time are in it, and none that begins later. NULL: none is.
  up_to        timestamptz,
  -- When the last viewer of those slots was seen.
  seen_at      timestamptz
);

-- The replicas that count. Each says again and again that it told all that it saw: nobody watches is known only where all of
-- them said so lately.
CREATE TABLE audience_replica (
  replica       text PRIMARY KEY,
  alive_at      timestamptz NOT NULL,
  -- It has told what it saw without a gap since this time.
  counted_since timestamptz NOT NULL
);

-- Counts that others made: the latest of each source.
CREATE TABLE audience_count (
  broadcast_id text NOT NULL,
  source       text NOT NULL,
  viewers      bigint,
  -- NULL: it was not counted yet.
  counted_at   timestamptz,
  -- When the next count is due, if the service asks for it.
  due_at       timestamptz,
  PRIMARY KEY (broadcast_id, source)
);
CREATE INDEX audience_count_due ON audience_count (due_at) WHERE due_at IS NOT NULL;
