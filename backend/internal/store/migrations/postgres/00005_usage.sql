-- +goose Up

-- What gateways said, as it was said: bytes since the beginning of a session in one
-- process of its gateway. fault: what is wrong with it; empty: nothing.
CREATE TABLE usage_reports (
    gateway_id  TEXT COLLATE "C" NOT NULL,
    boot_id     TEXT COLLATE "C" NOT NULL,
    session_id  TEXT COLLATE "C" NOT NULL,
    sequence    BIGINT NOT NULL CHECK (sequence >= 1),
    up          BIGINT NOT NULL CHECK (up >= 0),
    down        BIGINT NOT NULL CHECK (down >= 0),
    counted_at  BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    fault       TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (gateway_id, boot_id, session_id, sequence)
);

-- The sum of a session's reports, and whose it is. It outlives sessions, devices,
-- users, subscriptions and gateways: no references. Empty: unknown whose.
CREATE TABLE usage_sessions (
    gateway_id      TEXT COLLATE "C" NOT NULL,
    boot_id         TEXT COLLATE "C" NOT NULL,
    session_id      TEXT COLLATE "C" NOT NULL,
    device_id       TEXT COLLATE "C" NOT NULL,
    user_id         TEXT COLLATE "C" NOT NULL,
    subscription_id TEXT COLLATE "C" NOT NULL,
    sequence        BIGINT NOT NULL,
    up              BIGINT NOT NULL CHECK (up >= 0),
    down            BIGINT NOT NULL CHECK (down >= 0),
    faults          BIGINT NOT NULL,
    counted_at      BIGINT NOT NULL,
    received_at     BIGINT NOT NULL,
    compact_at      BIGINT, -- when its reports may be made fewer
    PRIMARY KEY (gateway_id, boot_id, session_id)
);
CREATE INDEX usage_sessions_subscription ON usage_sessions (subscription_id);
CREATE INDEX usage_sessions_user ON usage_sessions (user_id);
CREATE INDEX usage_sessions_device ON usage_sessions (device_id);
CREATE INDEX usage_sessions_compact ON usage_sessions (compact_at) WHERE compact_at IS NOT NULL;

-- Sums by quarter of an hour: the offset of every time zone is a multiple of it.
-- A bucket begins at 900,000,000 times its number.
CREATE TABLE usage_buckets (
    subscription_id TEXT COLLATE "C" NOT NULL,
    bucket          BIGINT NOT NULL,
    gateway_id      TEXT COLLATE "C" NOT NULL,
    up              BIGINT NOT NULL CHECK (up >= 0),
    down            BIGINT NOT NULL CHECK (down >= 0),
    PRIMARY KEY (subscription_id, bucket, gateway_id)
);
