-- +goose Up

-- Gateways that devices are to leave. drained_at: since when an operator wants it so,
-- NULL: none does. leaving: 1 when the gateway itself has said that it is about to stop.
ALTER TABLE gateways ADD COLUMN drained_at BIGINT;
ALTER TABLE gateways ADD COLUMN leaving BIGINT NOT NULL DEFAULT 0;

INSERT INTO settings (name, value) VALUES ('oldest_schema', '9') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
