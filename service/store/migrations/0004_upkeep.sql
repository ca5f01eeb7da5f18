-- For the removal of broadcasts that were deleted long ago.
CREATE INDEX broadcast_deleted ON broadcast (update_time) WHERE deleted;

-- The latest time that any replica saw on the clock of the database, in one row: a clock that was set back is behind it.
CREATE TABLE clock (
  seen_at timestamptz NOT NULL
);
INSERT INTO clock (seen_at) VALUES (now());
