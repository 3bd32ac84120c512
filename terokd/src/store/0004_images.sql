-- Images that this daemon built: proof of whose they are once their names are gone.
CREATE TABLE images (
    image_id     TEXT PRIMARY KEY NOT NULL, -- sha256: and 64 hex digits
    layer        TEXT NOT NULL,
    tag          TEXT NOT NULL,             -- full name it was built under
    project_id   TEXT,
    base         TEXT NOT NULL,             -- normalised base reference
    content_hash TEXT NOT NULL,
    versions     TEXT,                      -- JSON: what is installed, as the build told it
    built_at     TEXT NOT NULL
) STRICT;

-- The cache-bust value that agent layers on a base were last built with, so that selections share what is installed.
CREATE TABLE image_busts (
    base       TEXT PRIMARY KEY NOT NULL,
    cache_bust TEXT NOT NULL
) STRICT;
