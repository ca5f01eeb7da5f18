-- A fault of our own that ends every pass over the broadcast: its code, a message without secrets, since when, how often in a
-- row. NULL: the last pass ended well.
ALTER TABLE broadcast ADD COLUMN fault jsonb;
