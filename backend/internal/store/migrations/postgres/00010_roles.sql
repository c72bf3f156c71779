-- +goose Up

-- NULL: enabled.
ALTER TABLE operators ADD COLUMN disabled_at BIGINT;

-- What a token may do, never more than its operator. The hash of a token that may
-- less than everything is kept in a form that programs from before roles do not
-- find: they would let it do everything.
ALTER TABLE api_tokens ADD COLUMN role TEXT COLLATE "C" NOT NULL DEFAULT 'owner';
CREATE INDEX api_tokens_own ON api_tokens (operator_id, id);

INSERT INTO settings (name, value) VALUES ('oldest_schema', '9') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
