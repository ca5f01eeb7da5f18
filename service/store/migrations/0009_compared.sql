-- When the last round of the observer began that was shown everything by the provider and compared it with the rows. A round
-- whose lists lacked an answer leaves it as it was. NULL: a version that did not write it observed last.
ALTER TABLE provider ADD COLUMN compared_at timestamptz;
