-- Times are unix microseconds. Ids are UUIDs in text, except for sessions, whose
-- ids (32 hexadecimal digits) gateways choose.

-- +goose Up

CREATE TABLE settings (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- Secrets of the service, sealed with a key that is not in the database.
CREATE TABLE secrets (
    id         TEXT    NOT NULL PRIMARY KEY,
    kind       TEXT    NOT NULL,
    sealed     BLOB    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
    id          TEXT    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    note        TEXT    NOT NULL,
    disabled_at INTEGER,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE plans (
    id            TEXT    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE,
    max_devices   INTEGER NOT NULL CHECK (max_devices >= 1),
    max_sessions  INTEGER NOT NULL CHECK (max_sessions >= 1),
    max_streams   INTEGER NOT NULL CHECK (max_streams >= 1),
    max_udp       INTEGER NOT NULL CHECK (max_udp >= 0),
    duration_days INTEGER CHECK (duration_days >= 1),
    created_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE subscriptions (
    id         TEXT    NOT NULL PRIMARY KEY,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    plan_id    TEXT    NOT NULL REFERENCES plans (id) ON DELETE RESTRICT,
    starts_at  INTEGER NOT NULL,
    ends_at    INTEGER CHECK (ends_at > starts_at),
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX subscriptions_user ON subscriptions (user_id);
CREATE INDEX subscriptions_plan ON subscriptions (plan_id);

CREATE TABLE devices (
    id           TEXT    NOT NULL PRIMARY KEY,
    user_id      TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name         TEXT    NOT NULL,
    platform     TEXT    NOT NULL,
    public_key   BLOB    NOT NULL UNIQUE,
    generation   INTEGER NOT NULL CHECK (generation >= 1),
    revoked_at   INTEGER,
    last_seen_at INTEGER,
    created_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX devices_user ON devices (user_id);

CREATE TABLE invitations (
    id         TEXT    NOT NULL PRIMARY KEY,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    code_hash  BLOB    NOT NULL UNIQUE,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER,
    device_id  TEXT    REFERENCES devices (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    CHECK ((used_at IS NULL) = (device_id IS NULL))
) STRICT;
CREATE INDEX invitations_user ON invitations (user_id);
CREATE INDEX invitations_device ON invitations (device_id);
CREATE INDEX invitations_expiry ON invitations (expires_at);

CREATE TABLE regions (
    id         TEXT    NOT NULL PRIMARY KEY,
    code       TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE gateways (
    id              TEXT    NOT NULL PRIMARY KEY,
    name            TEXT    NOT NULL,
    region_id       TEXT    NOT NULL REFERENCES regions (id) ON DELETE RESTRICT,
    join_code_hash  BLOB    NOT NULL UNIQUE,
    join_expires_at INTEGER NOT NULL,
    joined_at       INTEGER,
    public_key      BLOB    UNIQUE,
    url             TEXT    NOT NULL,
    version         TEXT    NOT NULL,
    boot_id         TEXT    NOT NULL,
    lease_until     INTEGER,
    sessions        INTEGER NOT NULL,
    streams         INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    CHECK ((joined_at IS NULL) = (public_key IS NULL))
) STRICT;
CREATE INDEX gateways_region ON gateways (region_id);

-- A record of what happened, which outlives devices, users and gateways: no
-- references.
CREATE TABLE sessions (
    id              TEXT    NOT NULL PRIMARY KEY,
    device_id       TEXT    NOT NULL,
    user_id         TEXT    NOT NULL,
    subscription_id TEXT    NOT NULL,
    gateway_id      TEXT    NOT NULL,
    boot_id         TEXT    NOT NULL,
    started_at      INTEGER NOT NULL,
    ended_at        INTEGER,
    end_reason      TEXT    NOT NULL
) STRICT;
CREATE INDEX sessions_live_user ON sessions (user_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_live_gateway ON sessions (gateway_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_lost ON sessions (gateway_id) WHERE end_reason = 'gateway_lost';
CREATE INDEX sessions_ended ON sessions (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX sessions_started ON sessions (started_at, id);

CREATE TABLE operators (
    id         TEXT    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    role       TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE api_tokens (
    id          TEXT    NOT NULL PRIMARY KEY,
    operator_id TEXT    NOT NULL REFERENCES operators (id) ON DELETE CASCADE,
    hash        BLOB    NOT NULL UNIQUE,
    expires_at  INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX api_tokens_operator ON api_tokens (operator_id);
CREATE INDEX api_tokens_expiry ON api_tokens (expires_at);

CREATE TABLE idempotency_keys (
    operator_id TEXT    NOT NULL REFERENCES operators (id) ON DELETE CASCADE,
    key         TEXT    NOT NULL,
    request     BLOB    NOT NULL,
    object_id   TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (operator_id, key)
) STRICT;
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
