-- +goose Up

-- What devices make themselves known to gateways by, sealed with a key that is not
-- in the database. The numbers grow, so that of two processes that make the next
-- key one succeeds.
CREATE TABLE knock_keys (
    number      INTEGER NOT NULL PRIMARY KEY,
    sealed      BLOB    NOT NULL,
    active_from INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;
