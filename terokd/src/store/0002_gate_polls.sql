CREATE TABLE gate_polls (
    gate_path       TEXT PRIMARY KEY NOT NULL,
    last_poll_at    TEXT,
    last_success_at TEXT,
    failures        INTEGER NOT NULL,
    last_error      TEXT,
    last_error_kind TEXT,
    notified_head   TEXT, -- upstream's head that subscribers were told about
    staleness       TEXT, -- JSON
    last_sync_at    TEXT,
    last_sync_error TEXT
) STRICT;
