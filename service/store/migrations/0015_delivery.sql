-- Whether an egress is to run for the viewers of a broadcast of the delivery policy ON_DEMAND: the last decision with its inputs.
-- '{}': none was made yet.
ALTER TABLE broadcast ADD COLUMN delivery jsonb NOT NULL DEFAULT '{}';
