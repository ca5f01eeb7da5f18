-- The counter row `head` orders all changes, so whoever has it holds up every writer. It is taken by the commit itself, inside the
-- server: a transaction that took it in a statement before would hold it for a round trip of its network.
--
-- A transaction inserts what is to be logged here; the trigger, which runs when it commits, numbers it, moves it into the log and
-- leaves this table empty. Unlogged: no row is ever committed.
CREATE UNLOGGED TABLE pending_change (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  broadcast_id text NOT NULL,
  reasons      text[] NOT NULL,
  messages     text[] NOT NULL,
  actor        text NOT NULL,
  previous     jsonb
);

CREATE FUNCTION log_pending_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  many integer := cardinality(NEW.reasons);
BEGIN
  DELETE FROM pending_change WHERE id = NEW.id;
  IF many = 0 THEN
    RETURN NULL;
  END IF;
  -- The snapshot leaves out the secrets, which callers must not see, and the columns of the queue.
  WITH moved AS (UPDATE head SET revision = revision + many RETURNING revision)
  INSERT INTO event (revision, broadcast_id, reason, message, actor, state, snapshot, previous)
  SELECT moved.revision - many + e.n, b.id, e.reason, e.message, NEW.actor, b.state,
         CASE WHEN e.n = many THEN
           to_jsonb(b) - '{secrets,lease_until,lease_owner,fence,lane,trace_context,unverified_since}'::text[] END,
         CASE WHEN e.n = many THEN NEW.previous END
  FROM moved, broadcast b, unnest(NEW.reasons, NEW.messages) WITH ORDINALITY AS e (reason, message, n)
  WHERE b.id = NEW.broadcast_id;
  PERFORM pg_notify('broadcast_changed', '');
  RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER pending_change_logged AFTER INSERT ON pending_change
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION log_pending_change();
