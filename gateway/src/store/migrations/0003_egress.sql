-- What a call connected to or asked for.

-- A JSON array of objects: destination, addresses, connections, refused, sent, received; null: nothing.
ALTER TABLE calls ADD COLUMN contacted TEXT;
