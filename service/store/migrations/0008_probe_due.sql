-- When the next look is due. A replica that claims it puts it off by one interval before it looks, so another replica makes
-- up for one that died. 'infinity': the broadcast does not run.
ALTER TABLE probe ADD COLUMN look_due_at timestamptz NOT NULL DEFAULT '-infinity';
-- The state of the broadcast at the last claim: another one makes the look due at once.
ALTER TABLE probe ADD COLUMN looked_state text NOT NULL DEFAULT '';
CREATE INDEX probe_due ON probe (look_due_at);
