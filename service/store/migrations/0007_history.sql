-- Which server wrote what is stored here. After a failover, a switch-over or a restore it is another one, and the last commits
-- may be missing.
--
-- System identifier and timeline tell a promoted standby and a restored base backup; the ids of database and table tell a
-- restored dump. NULL: a standby, which has no timeline of its own. A managed server may close a function: its part is empty.
CREATE FUNCTION server_history() RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
  system text := '';
  timeline text := '';
BEGIN
  IF pg_is_in_recovery() THEN
    RETURN NULL;
  END IF;
  BEGIN
    SELECT system_identifier::text INTO system FROM pg_control_system();
  EXCEPTION WHEN insufficient_privilege OR undefined_function OR feature_not_supported THEN
    system := '';
  END;
  BEGIN
    timeline := left(pg_walfile_name(pg_current_wal_lsn()), 8);
  EXCEPTION WHEN insufficient_privilege OR undefined_function OR feature_not_supported THEN
    timeline := '';
  END;
  RETURN concat_ws('/', system, timeline,
    (SELECT oid FROM pg_database WHERE datname = current_database()), 'head'::regclass::oid);
END $$;

ALTER TABLE head
  -- Part of every resume token: a token of another history is refused.
  ADD COLUMN history       uuid NOT NULL DEFAULT gen_random_uuid(),
  ADD COLUMN history_begin timestamptz NOT NULL DEFAULT now(),
  -- server_history(), as a replica saw it last. NULL: none has looked yet.
  ADD COLUMN server        text,
  -- Above every fence that was given out in an earlier history, the lost ones included.
  ADD COLUMN fence_base    bigint NOT NULL DEFAULT 0;

-- Since when what is stored of the broadcast may be older than what was done: nothing that could double a publisher is started
-- before the providers were looked at. NULL: it is as it was left.
ALTER TABLE broadcast ADD COLUMN unverified_since timestamptz;
