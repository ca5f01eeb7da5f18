-- For lists by outcome or by type alone. Nine of ten webhooks are accepted, and a page of those is found by id at once: the
-- index leaves them out, so it costs their delivery nothing. Any type may be rare, and without an index a page of a rare type
-- would read the whole table.
CREATE INDEX webhook_apart ON webhook (outcome, id) WHERE outcome <> 'accepted';
CREATE INDEX webhook_type ON webhook (type, id);
