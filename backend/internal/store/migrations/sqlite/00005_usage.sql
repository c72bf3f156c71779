-- +goose Up

-- What gateways said, as it was said: bytes since the beginning of a session in one
-- process of its gateway. fault: what is wrong with it; empty: nothing.
CREATE TABLE usage_reports (
    gateway_id  TEXT NOT NULL,
    boot_id     TEXT NOT NULL,
    session_id  TEXT NOT NULL,
    sequence    INTEGER NOT NULL CHECK (sequence >= 1),
    up          INTEGER NOT NULL CHECK (up >= 0),
    down        INTEGER NOT NULL CHECK (down >= 0),
    counted_at  INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    fault       TEXT NOT NULL,
    PRIMARY KEY (gateway_id, boot_id, session_id, sequence)
) STRICT;

-- The sum of a session's reports, and whose it is. It outlives sessions, devices,
-- users, subscriptions and gateways: no references. Empty: unknown whose.
CREATE TABLE usage_sessions (
    gateway_id      TEXT NOT NULL,
    boot_id         TEXT NOT NULL,
    session_id      TEXT NOT NULL,
    device_id       TEXT NOT NULL,
    user_id         TEXT NOT NULL,
    subscription_id TEXT NOT NULL,
    sequence        INTEGER NOT NULL,
    up              INTEGER NOT NULL CHECK (up >= 0),
    down            INTEGER NOT NULL CHECK (down >= 0),
    faults          INTEGER NOT NULL,
    counted_at      INTEGER NOT NULL,
    received_at     INTEGER NOT NULL,
    compact_at      INTEGER, -- when its reports may be made fewer
    PRIMARY KEY (gateway_id, boot_id, session_id)
) STRICT;
CREATE INDEX usage_sessions_subscription ON usage_sessions (subscription_id);
CREATE INDEX usage_sessions_user ON usage_sessions (user_id);
CREATE INDEX usage_sessions_device ON usage_sessions (device_id);
CREATE INDEX usage_sessions_compact ON usage_sessions (compact_at) WHERE compact_at IS NOT NULL;

-- Sums by quarter of an hour: the offset of every time zone is a multiple of it.
-- A bucket begins at 900,000,000 times its number.
CREATE TABLE usage_buckets (
    subscription_id TEXT NOT NULL,
    bucket          INTEGER NOT NULL,
    gateway_id      TEXT NOT NULL,
    up              INTEGER NOT NULL CHECK (up >= 0),
    down            INTEGER NOT NULL CHECK (down >= 0),
    PRIMARY KEY (subscription_id, bucket, gateway_id)
) STRICT;
