CREATE TABLE operations (
    id          TEXT PRIMARY KEY NOT NULL, -- rises with time
    method      TEXT NOT NULL,
    project_id  TEXT,
    task_id     TEXT,
    resumable   INTEGER NOT NULL,
    state       TEXT NOT NULL,
    started_at  TEXT NOT NULL,
    finished_at TEXT,
    params      TEXT, -- of resumable ones only: nobody else needs them again
    progress    TEXT,
    error       TEXT,
    result      TEXT
) STRICT;

CREATE INDEX operations_unfinished ON operations (id) WHERE finished_at IS NULL;
