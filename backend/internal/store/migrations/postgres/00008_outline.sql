-- +goose Up

-- Where traffic leaves. health is what probes of gateways led to, and counts until
-- probed_at is too long ago. managed and fallback are 0 or 1.
CREATE TABLE outline_servers (
    id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name         TEXT COLLATE "C" NOT NULL UNIQUE,
    region_id    TEXT COLLATE "C" NOT NULL REFERENCES regions (id) ON DELETE RESTRICT,
    host         TEXT COLLATE "C" NOT NULL,
    port         BIGINT NOT NULL CHECK (port BETWEEN 1 AND 65535),
    weight       BIGINT NOT NULL CHECK (weight >= 0),
    priority     BIGINT NOT NULL CHECK (priority >= 0),
    capacity     BIGINT NOT NULL CHECK (capacity >= 1),
    managed      BIGINT NOT NULL,
    fallback     BIGINT NOT NULL,
    disabled_at  BIGINT,
    health       TEXT COLLATE "C" NOT NULL,
    health_since BIGINT,
    probed_at    BIGINT,
    created_at   BIGINT NOT NULL,
    UNIQUE (host, port)
);
CREATE INDEX outline_servers_region_order ON outline_servers (region_id, id);

-- The access keys that gateways use, their passwords sealed with a key that is not
-- in the database. A server has one; another one has the next generation.
CREATE TABLE outline_keys (
    server_id    TEXT COLLATE "C" NOT NULL REFERENCES outline_servers (id) ON DELETE CASCADE,
    generation   BIGINT NOT NULL CHECK (generation >= 1),
    cipher       TEXT COLLATE "C" NOT NULL,
    prefix       BYTEA NOT NULL,
    sealed       BYTEA NOT NULL,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (server_id, generation)
);

-- What a gateway last saw of a server. streak: how many results in a row were
-- good (above 0) or bad (below 0). latency is in microseconds.
CREATE TABLE outline_probes (
    server_id    TEXT COLLATE "C" NOT NULL REFERENCES outline_servers (id) ON DELETE CASCADE,
    gateway_id   TEXT COLLATE "C" NOT NULL REFERENCES gateways (id) ON DELETE CASCADE,
    streak       BIGINT NOT NULL,
    failure      TEXT COLLATE "C" NOT NULL,
    latency      BIGINT NOT NULL,
    probed_at    BIGINT NOT NULL,
    PRIMARY KEY (server_id, gateway_id)
);
CREATE INDEX outline_probes_gateway ON outline_probes (gateway_id);

-- The server that a session leaves through, the one before that, and when it was
-- switched. The place is taken for as long as the session has not ended.
ALTER TABLE sessions ADD COLUMN outline_server_id TEXT COLLATE "C";
ALTER TABLE sessions ADD COLUMN outline_before TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN outline_switched_at BIGINT;
CREATE INDEX sessions_outline ON sessions (outline_server_id) WHERE ended_at IS NULL AND outline_server_id IS NOT NULL;

ALTER TABLE events ADD COLUMN outline_server_id TEXT COLLATE "C" NOT NULL DEFAULT '';
