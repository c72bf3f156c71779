-- +goose Up

-- What gateways are told. A row is written by the unit of work that caused it.
-- gateways: whom it concerns, ids with spaces between them; NULL: all.
CREATE TABLE events (
    version         BIGINT NOT NULL PRIMARY KEY,
    kind            TEXT COLLATE "C" NOT NULL,
    gateways        TEXT COLLATE "C",
    reason          TEXT COLLATE "C" NOT NULL,
    user_id         TEXT COLLATE "C" NOT NULL,
    device_id       TEXT COLLATE "C" NOT NULL,
    subscription_id TEXT COLLATE "C" NOT NULL,
    plan_id         TEXT COLLATE "C" NOT NULL,
    session_id      TEXT COLLATE "C" NOT NULL,
    keys            TEXT COLLATE "C" NOT NULL,
    created_at      BIGINT NOT NULL
);

-- One row: the newest version that was given out, and the newest that is not kept
-- any more. Who takes a version holds the row until the end of its unit of work,
-- so that versions become visible in their order and none is ever missing.
CREATE TABLE event_log (
    id     BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    latest BIGINT NOT NULL,
    low    BIGINT NOT NULL CHECK (low <= latest)
);
INSERT INTO event_log (id, latest, low) VALUES (1, 0, 0);

-- Which gateways know a user: those that had a session of his.
CREATE INDEX sessions_user_gateway ON sessions (user_id, gateway_id);

-- Why the service wants a session to be closed; empty: it does not.
ALTER TABLE sessions ADD COLUMN close_reason TEXT COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX sessions_to_close ON sessions (gateway_id) WHERE close_reason <> '' AND ended_at IS NULL;
