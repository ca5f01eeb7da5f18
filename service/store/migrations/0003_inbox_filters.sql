-- Lists by outcome or by type alone. Nine of ten webhooks are accepted, and those are found by id at once: an index without
-- them costs a delivery nothing. By type any may be rare, and without an index a page that finds too little reads the table.
CREATE INDEX webhook_apart ON webhook (outcome, id) WHERE outcome <> 'accepted';
CREATE INDEX webhook_type ON webhook (type, id);
