-- Whose database this is. Never a secret: the names of accounts and the ids of keys.
CREATE TABLE bound (
  environment text NOT NULL,
  -- By provider: what its account is known by. One that agrees is enough.
  accounts    jsonb NOT NULL,
  bound_at    timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX bound_once ON bound ((true));

-- A known text, sealed with each key that was ever the first: a key that opens it opens what that key sealed.
CREATE TABLE sealing_key (
  canary     bytea NOT NULL,
  first_used timestamptz NOT NULL DEFAULT now()
);
