-- When a person last asked for everything to be tried again: calls that failed before are made at once, without their back-off.
ALTER TABLE broadcast ADD COLUMN retry_from timestamptz;
