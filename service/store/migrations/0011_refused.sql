-- Since when and until when replicas were refused by the provider for their credentials, with no answer to any of them. One
-- replica that is refused is no outage: it is one when the others had the time to do better.
ALTER TABLE provider ADD COLUMN refused_since timestamptz;
ALTER TABLE provider ADD COLUMN refused_at timestamptz;
