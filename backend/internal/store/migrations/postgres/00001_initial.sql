-- Times are unix microseconds. Ids are UUIDs in text, except for sessions, whose
-- ids (32 hexadecimal digits) gateways choose. Text is compared by its bytes: no
-- upgrade of the system's locales then changes the order that an index rests on.

-- +goose Up

CREATE TABLE settings (
    name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);

-- Secrets of the service, sealed with a key that is not in the database.
CREATE TABLE secrets (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    kind       TEXT COLLATE "C" NOT NULL,
    sealed     BYTEA            NOT NULL,
    created_at BIGINT           NOT NULL
);

CREATE TABLE users (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name        TEXT COLLATE "C" NOT NULL UNIQUE,
    note        TEXT COLLATE "C" NOT NULL,
    disabled_at BIGINT,
    created_at  BIGINT           NOT NULL
);

CREATE TABLE plans (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name          TEXT COLLATE "C" NOT NULL UNIQUE,
    max_devices   BIGINT           NOT NULL CHECK (max_devices >= 1),
    max_sessions  BIGINT           NOT NULL CHECK (max_sessions >= 1),
    max_streams   BIGINT           NOT NULL CHECK (max_streams >= 1),
    max_udp       BIGINT           NOT NULL CHECK (max_udp >= 0),
    duration_days BIGINT           CHECK (duration_days >= 1),
    created_at    BIGINT           NOT NULL
);

CREATE TABLE subscriptions (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    plan_id    TEXT COLLATE "C" NOT NULL REFERENCES plans (id) ON DELETE RESTRICT,
    starts_at  BIGINT           NOT NULL,
    ends_at    BIGINT           CHECK (ends_at > starts_at),
    created_at BIGINT           NOT NULL
);
CREATE INDEX subscriptions_user ON subscriptions (user_id);
CREATE INDEX subscriptions_plan ON subscriptions (plan_id);

CREATE TABLE devices (
    id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_id      TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name         TEXT COLLATE "C" NOT NULL,
    platform     TEXT COLLATE "C" NOT NULL,
    public_key   BYTEA            NOT NULL UNIQUE,
    generation   BIGINT           NOT NULL CHECK (generation >= 1),
    revoked_at   BIGINT,
    last_seen_at BIGINT,
    created_at   BIGINT           NOT NULL
);
CREATE INDEX devices_user ON devices (user_id);

CREATE TABLE invitations (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    code_hash  BYTEA            NOT NULL UNIQUE,
    expires_at BIGINT           NOT NULL,
    used_at    BIGINT,
    device_id  TEXT COLLATE "C" REFERENCES devices (id) ON DELETE CASCADE,
    created_at BIGINT           NOT NULL,
    CHECK ((used_at IS NULL) = (device_id IS NULL))
);
CREATE INDEX invitations_user ON invitations (user_id);
CREATE INDEX invitations_device ON invitations (device_id);
CREATE INDEX invitations_expiry ON invitations (expires_at);

CREATE TABLE regions (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    code       TEXT COLLATE "C" NOT NULL UNIQUE,
    name       TEXT COLLATE "C" NOT NULL,
    created_at BIGINT           NOT NULL
);

CREATE TABLE gateways (
    id              TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name            TEXT COLLATE "C" NOT NULL,
    region_id       TEXT COLLATE "C" NOT NULL REFERENCES regions (id) ON DELETE RESTRICT,
    join_code_hash  BYTEA            NOT NULL UNIQUE,
    join_expires_at BIGINT           NOT NULL,
    joined_at       BIGINT,
    public_key      BYTEA            UNIQUE,
    url             TEXT COLLATE "C" NOT NULL,
    version         TEXT COLLATE "C" NOT NULL,
    boot_id         TEXT COLLATE "C" NOT NULL,
    lease_until     BIGINT,
    sessions        BIGINT           NOT NULL,
    streams         BIGINT           NOT NULL,
    created_at      BIGINT           NOT NULL,
    CHECK ((joined_at IS NULL) = (public_key IS NULL))
);
CREATE INDEX gateways_region ON gateways (region_id);

-- A record of what happened, which outlives devices, users and gateways: no
-- references.
CREATE TABLE sessions (
    id              TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    device_id       TEXT COLLATE "C" NOT NULL,
    user_id         TEXT COLLATE "C" NOT NULL,
    subscription_id TEXT COLLATE "C" NOT NULL,
    gateway_id      TEXT COLLATE "C" NOT NULL,
    boot_id         TEXT COLLATE "C" NOT NULL,
    started_at      BIGINT           NOT NULL,
    ended_at        BIGINT,
    end_reason      TEXT COLLATE "C" NOT NULL
);
CREATE INDEX sessions_live_user ON sessions (user_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_live_gateway ON sessions (gateway_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_lost ON sessions (gateway_id) WHERE end_reason = 'gateway_lost';
CREATE INDEX sessions_ended ON sessions (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX sessions_started ON sessions (started_at, id);

CREATE TABLE operators (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL UNIQUE,
    role       TEXT COLLATE "C" NOT NULL,
    created_at BIGINT           NOT NULL
);

CREATE TABLE api_tokens (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    operator_id TEXT COLLATE "C" NOT NULL REFERENCES operators (id) ON DELETE CASCADE,
    hash        BYTEA            NOT NULL UNIQUE,
    expires_at  BIGINT           NOT NULL,
    created_at  BIGINT           NOT NULL
);
CREATE INDEX api_tokens_operator ON api_tokens (operator_id);
CREATE INDEX api_tokens_expiry ON api_tokens (expires_at);

CREATE TABLE idempotency_keys (
    operator_id TEXT COLLATE "C" NOT NULL REFERENCES operators (id) ON DELETE CASCADE,
    key         TEXT COLLATE "C" NOT NULL,
    request     BYTEA            NOT NULL,
    object_id   TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT           NOT NULL,
    PRIMARY KEY (operator_id, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
