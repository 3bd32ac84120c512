-- Who may reach a gate over HTTP. The tokens themselves are kept nowhere.
CREATE TABLE gate_tokens (
    hash         BLOB PRIMARY KEY NOT NULL, -- SHA-256 of the whole token
    gate_path    TEXT NOT NULL,             -- resolved; what the token opens
    scope        TEXT NOT NULL,             -- project
    task_id      TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    last_used_at TEXT,                      -- written now and then
    imported     INTEGER NOT NULL,          -- found in the reference's tokens.json
    revoked_at   TEXT                       -- of imported ones only: the file still has them
) STRICT, WITHOUT ROWID;

CREATE INDEX gate_tokens_task ON gate_tokens (scope, task_id);
