-- The ledger: calls, sandboxes, agents. Times are nanoseconds since 1970-01-01T00:00:00Z. Booleans are 0 and 1.

CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE calls (
    seq              INTEGER PRIMARY KEY, -- order of recording, whatever the clock does
    call_id          BLOB    NOT NULL UNIQUE,
    agent_id         TEXT    NOT NULL,
    user_id          TEXT,
    task_id          TEXT,
    tool             TEXT    NOT NULL,
    version          TEXT    NOT NULL,
    tier             TEXT,
    tool_digest      TEXT,
    generation       TEXT,
    decision_id      TEXT,
    trace_id         TEXT    NOT NULL,
    arguments_sha256 TEXT    NOT NULL,
    reason           TEXT,
    created_at       INTEGER NOT NULL,
    delivered        INTEGER NOT NULL,
    state            TEXT    NOT NULL,
    is_error         INTEGER,
    problem          TEXT,
    detail           TEXT,
    may_have_run     INTEGER,
    exit             TEXT,
    duration_ms      REAL,
    finished_at      INTEGER,
    -- The long ones come last: SQLite reads a row from its beginning, and a list needs neither.
    arguments        TEXT    NOT NULL,
    result           TEXT,
    -- A call is open, or it has its one outcome.
    CHECK ((finished_at IS NULL) = (state IN ('running', 'awaiting_approval'))),
    CHECK ((finished_at IS NULL) = (is_error IS NULL))
) STRICT;

-- A rowid index ends with seq, so each of these lists newest first without sorting.
CREATE INDEX calls_by_owner ON calls (agent_id, user_id);
CREATE INDEX calls_by_task ON calls (agent_id, user_id, task_id) WHERE task_id IS NOT NULL;
CREATE INDEX calls_open ON calls (call_id) WHERE finished_at IS NULL;

CREATE TABLE sandboxes (
    sandbox_id BLOB    NOT NULL PRIMARY KEY,
    backend    TEXT    NOT NULL,
    call_id    TEXT,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE agents (
    key_id     TEXT    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    user_id    TEXT,
    key_mac    BLOB    NOT NULL, -- empty once removed
    created_at INTEGER NOT NULL,
    suspended  INTEGER NOT NULL,
    removed_at INTEGER -- the row stays: calls belong to a name, and nobody else may come to own them
) STRICT, WITHOUT ROWID;
