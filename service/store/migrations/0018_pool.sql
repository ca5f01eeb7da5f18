-- Live streams that were made ahead, for broadcasts that are started later. The row is committed before the call that makes the
-- live stream, and a broadcast that takes it deletes the row in the transaction that writes its resource: so a live stream is
-- in this table or belongs to one broadcast, never both.
CREATE TABLE pool_stream (
  id          text PRIMARY KEY,
  -- What was fixed at its creation.
  profile     text NOT NULL,
  phase       text NOT NULL CHECK (phase IN ('intended', 'present', 'leaving')),
  external_id text NOT NULL DEFAULT '',
  playback_id text NOT NULL DEFAULT '',
  -- The stream key, encrypted.
  secret      bytea,
  intended_at timestamptz NOT NULL DEFAULT now(),
  -- When the provider was last asked about it.
  looked_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX pool_stream_idle ON pool_stream (profile, intended_at) WHERE phase = 'present';
CREATE UNIQUE INDEX pool_stream_external ON pool_stream (external_id) WHERE external_id <> '';
