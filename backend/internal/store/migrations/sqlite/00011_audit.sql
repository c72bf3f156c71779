-- +goose Up

-- Who changed what. A row is written by the unit of work that made the change; its
-- hash covers the row before and all of its own columns but the signature.
-- before, after: JSON without secrets, empty: there was, or is, nothing.
CREATE TABLE audit (
    number     INTEGER NOT NULL PRIMARY KEY,
    at         INTEGER NOT NULL,
    action     TEXT    NOT NULL,
    object_id  TEXT    NOT NULL,
    actor_kind TEXT    NOT NULL,
    actor_id   TEXT    NOT NULL,
    actor_name TEXT    NOT NULL,
    token_id   TEXT    NOT NULL,
    address    TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    before     TEXT    NOT NULL,
    after      TEXT    NOT NULL,
    hash       BLOB    NOT NULL,
    signature  BLOB    NOT NULL
) STRICT;
CREATE INDEX audit_object ON audit (object_id, number);
CREATE INDEX audit_actor ON audit (actor_id, number);
CREATE INDEX audit_action ON audit (action, number);

-- One row: the newest entry. Who adds one holds it until the end of its unit of work.
CREATE TABLE audit_head (
    id        INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    number    INTEGER NOT NULL,
    hash      BLOB    NOT NULL,
    signature BLOB    NOT NULL
) STRICT;
INSERT INTO audit_head (id, number, hash, signature) VALUES (1, 0, X'', X'');

INSERT INTO settings (name, value) VALUES ('oldest_schema', '9') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
