-- +goose Up

-- The oldest version of the schema whose program can run on this one: 9 is the
-- first that looks here. Each later step sets it again, to its own number when it
-- takes something away or changes what something means.
INSERT INTO settings (name, value) VALUES ('oldest_schema', '9') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
