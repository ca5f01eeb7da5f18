ALTER TABLE broadcast ADD COLUMN fallback jsonb NOT NULL DEFAULT '{}';

ALTER TABLE resource DROP CONSTRAINT resource_kind_check;
ALTER TABLE resource ADD CONSTRAINT resource_kind_check
  CHECK (kind IN ('room', 'stream', 'egress', 'recording', 'upload'));

-- The inbox. A webhook is stored before it is answered, once for each id that its provider gave the event. The next pass of
-- its broadcast takes it into account, because rows of `resource` have one writer, the holder of the lease.
CREATE TABLE webhook (
  id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  provider       text NOT NULL CHECK (provider IN ('livekit', 'mux')),
  event_id       text NOT NULL,
  type           text NOT NULL,
  -- Empty: it is about no broadcast of ours.
  broadcast_id   text NOT NULL DEFAULT '',
  outcome        text NOT NULL CHECK (outcome IN ('accepted', 'foreign', 'unknown_type', 'quarantined')),
  provider_time  timestamptz,
  receive_time   timestamptz NOT NULL DEFAULT now(),
  apply_time     timestamptz,
  delivery_count integer NOT NULL DEFAULT 1,
  -- What it says in the words of the domain, without secrets.
  heard          jsonb,
  -- The body for people, without its secrets.
  redacted       text NOT NULL DEFAULT '',
  -- The body byte for byte, for a replay. Encrypted, because live stream events have the stream key in them.
  body           bytea NOT NULL,
  UNIQUE (provider, event_id)
);
CREATE INDEX webhook_unapplied ON webhook (broadcast_id, id) WHERE apply_time IS NULL AND outcome = 'accepted';
CREATE INDEX webhook_about ON webhook (broadcast_id, id);
CREATE INDEX webhook_age ON webhook (receive_time);

-- Whether a provider answers, as the observer sees it.
CREATE TABLE provider (
  name              text PRIMARY KEY CHECK (name IN ('livekit', 'mux')),
  -- NULL: it answered at the last look.
  unreachable_since timestamptz,
  -- NULL: it did not answer at the last look.
  answering_since   timestamptz,
  checked_at        timestamptz NOT NULL,
  code              text NOT NULL DEFAULT '',
  message           text NOT NULL DEFAULT ''
);

-- The latest probe of a running broadcast: the people in its room, and the playlist that a player gets. Each of the two is
-- overwritten by the next look.
CREATE TABLE probe (
  broadcast_id text PRIMARY KEY REFERENCES broadcast (id),
  people       jsonb,
  people_at    timestamptz,
  playlist     jsonb,
  playlist_at  timestamptz
);

-- The latest report of each host's browser.
CREATE TABLE host_stats (
  broadcast_id text NOT NULL REFERENCES broadcast (id),
  identity     text NOT NULL,
  stats        jsonb NOT NULL,
  report_time  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (broadcast_id, identity)
);

-- Slots in the room that viewers hold while the fallback DIRECT_WEBRTC is in use.
CREATE TABLE viewer (
  broadcast_id text NOT NULL REFERENCES broadcast (id),
  viewer_id    text NOT NULL,
  expire_time  timestamptz NOT NULL,
  PRIMARY KEY (broadcast_id, viewer_id)
);
CREATE INDEX viewer_present ON viewer (broadcast_id, expire_time);
