-- +goose Up

-- The last time that a device was refused, for those who ask why. gateway_id is empty
-- when it had asked for a token.
CREATE TABLE device_refusals (
    device_id  TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    reason     TEXT COLLATE "C" NOT NULL,
    gateway_id TEXT COLLATE "C" NOT NULL,
    at         BIGINT  NOT NULL
);

-- How far a gateway's clock is ahead of the service's, in microseconds.
ALTER TABLE gateways ADD COLUMN clock_offset BIGINT NOT NULL DEFAULT 0;

INSERT INTO settings (name, value) VALUES ('oldest_schema', '9') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
