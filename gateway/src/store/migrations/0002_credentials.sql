-- The vault, and what was minted for calls and is not known to be gone.

-- JSON arrays of the names of sources; null: none.
ALTER TABLE calls ADD COLUMN credentials TEXT;
ALTER TABLE calls ADD COLUMN leaked TEXT;

CREATE TABLE secrets (
    name        TEXT    NOT NULL PRIMARY KEY,
    version     INTEGER NOT NULL,
    key_id      TEXT    NOT NULL, -- which master key opens it
    wrapped_key BLOB    NOT NULL,
    ciphertext  BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE credentials (
    credential_id BLOB    NOT NULL PRIMARY KEY,
    source        TEXT    NOT NULL,
    target        TEXT    NOT NULL, -- what it has to be revoked at
    call_id       BLOB    NOT NULL,
    handle        TEXT,             -- what its source revokes it by: no secret
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL, -- when it is worth nothing, revoked or not
    attempts      INTEGER NOT NULL, -- to revoke it, that failed
    error         TEXT              -- of the last one
) STRICT, WITHOUT ROWID;
