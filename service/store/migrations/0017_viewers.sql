-- Viewers who may not watch a broadcast any more. Rows go with those of the broadcast.
CREATE TABLE revoked_viewer (
  broadcast_id text NOT NULL REFERENCES broadcast (id),
  viewer_id text NOT NULL,
  revoke_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (broadcast_id, viewer_id)
);
-- The last starts, of which the expected time of the next one is learnt.
CREATE INDEX broadcast_live ON broadcast (live_time DESC) WHERE live_time IS NOT NULL;
