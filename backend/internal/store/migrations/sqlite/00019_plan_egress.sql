-- +goose Up

-- What sessions of a plan may not reach, besides what their gateway denies to all: JSON;
-- empty: nothing.
ALTER TABLE plans ADD COLUMN egress TEXT NOT NULL DEFAULT '';

INSERT INTO settings (name, value) VALUES ('oldest_schema', '9') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
