-- The looks at a playlist that did not see it: an edge that cannot be seen is no playlist that stands still. NULL: the last
-- look saw it, or none was made.
ALTER TABLE probe ADD COLUMN unseen jsonb;
