-- +goose Up

-- Where traffic leaves. health is what probes of gateways led to, and counts until
-- probed_at is too long ago. managed and fallback are 0 or 1.
CREATE TABLE outline_servers (
    id           TEXT    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL UNIQUE,
    region_id    TEXT    NOT NULL REFERENCES regions (id) ON DELETE RESTRICT,
    host         TEXT    NOT NULL,
    port         INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    weight       INTEGER NOT NULL CHECK (weight >= 0),
    priority     INTEGER NOT NULL CHECK (priority >= 0),
    capacity     INTEGER NOT NULL CHECK (capacity >= 1),
    managed      INTEGER NOT NULL,
    fallback     INTEGER NOT NULL,
    disabled_at  INTEGER,
    health       TEXT    NOT NULL,
    health_since INTEGER,
    probed_at    INTEGER,
    created_at   INTEGER NOT NULL,
    UNIQUE (host, port)
) STRICT;
CREATE INDEX outline_servers_region_order ON outline_servers (region_id, id);

-- The access keys that gateways use, their passwords sealed with a key that is not
-- in the database. A server has one; another one has the next generation.
CREATE TABLE outline_keys (
    server_id  TEXT    NOT NULL REFERENCES outline_servers (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL CHECK (generation >= 1),
    cipher     TEXT    NOT NULL,
    prefix     BLOB    NOT NULL,
    sealed     BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (server_id, generation)
) STRICT;

-- What a gateway last saw of a server. streak: how many results in a row were
-- good (above 0) or bad (below 0). latency is in microseconds.
CREATE TABLE outline_probes (
    server_id  TEXT    NOT NULL REFERENCES outline_servers (id) ON DELETE CASCADE,
    gateway_id TEXT    NOT NULL REFERENCES gateways (id) ON DELETE CASCADE,
    streak     INTEGER NOT NULL,
    failure    TEXT    NOT NULL,
    latency    INTEGER NOT NULL,
    probed_at  INTEGER NOT NULL,
    PRIMARY KEY (server_id, gateway_id)
) STRICT;
CREATE INDEX outline_probes_gateway ON outline_probes (gateway_id);

-- The server that a session leaves through, the one before that, and when it was
-- switched. The place is taken for as long as the session has not ended.
ALTER TABLE sessions ADD COLUMN outline_server_id TEXT;
ALTER TABLE sessions ADD COLUMN outline_before TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN outline_switched_at INTEGER;
CREATE INDEX sessions_outline ON sessions (outline_server_id) WHERE ended_at IS NULL AND outline_server_id IS NOT NULL;

ALTER TABLE events ADD COLUMN outline_server_id TEXT NOT NULL DEFAULT '';
