-- +goose Up

-- Who changed what. A row is written by the unit of work that made the change; its
-- hash covers the row before and all of its own columns but the signature.
-- before, after: JSON without secrets, empty: there was, or is, nothing.
CREATE TABLE audit (
    number     BIGINT  NOT NULL PRIMARY KEY,
    at         BIGINT  NOT NULL,
    action     TEXT COLLATE "C" NOT NULL,
    object_id  TEXT COLLATE "C" NOT NULL,
    actor_kind TEXT COLLATE "C" NOT NULL,
    actor_id   TEXT COLLATE "C" NOT NULL,
    actor_name TEXT COLLATE "C" NOT NULL,
    token_id   TEXT COLLATE "C" NOT NULL,
    address    TEXT COLLATE "C" NOT NULL,
    reason     TEXT COLLATE "C" NOT NULL,
    before     TEXT COLLATE "C" NOT NULL,
    after      TEXT COLLATE "C" NOT NULL,
    hash       BYTEA   NOT NULL,
    signature  BYTEA   NOT NULL
);
CREATE INDEX audit_object ON audit (object_id, number);
CREATE INDEX audit_actor ON audit (actor_id, number);
CREATE INDEX audit_action ON audit (action, number);

-- One row: the newest entry. Who adds one holds it until the end of its unit of work.
CREATE TABLE audit_head (
    id        BIGINT  NOT NULL PRIMARY KEY CHECK (id = 1),
    number    BIGINT  NOT NULL,
    hash      BYTEA   NOT NULL,
    signature BYTEA   NOT NULL
);
INSERT INTO audit_head (id, number, hash, signature) VALUES (1, 0, '', '');

INSERT INTO settings (name, value) VALUES ('oldest_schema', '9') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
