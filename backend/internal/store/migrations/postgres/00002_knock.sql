-- +goose Up

-- What devices make themselves known to gateways by, sealed with a key that is not
-- in the database. The numbers grow, so that of two processes that make the next
-- key one succeeds.
CREATE TABLE knock_keys (
    number      BIGINT NOT NULL PRIMARY KEY,
    sealed      BYTEA  NOT NULL,
    active_from BIGINT NOT NULL,
    created_at  BIGINT NOT NULL
);
