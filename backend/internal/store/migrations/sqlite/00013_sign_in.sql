-- +goose Up

-- What an operator signs in with. last_step is the step of his app's codes that was
-- used last; guesses_back is when all guesses of his password will have come back that
-- strangers have used up.
CREATE TABLE sign_ins (
    operator_id  TEXT    NOT NULL PRIMARY KEY REFERENCES operators (id) ON DELETE CASCADE,
    password     TEXT    NOT NULL,
    sealed_totp  BLOB NOT NULL,
    last_step    INTEGER NOT NULL,
    guesses_back INTEGER NOT NULL,
    failures     INTEGER NOT NULL,
    changed_at   INTEGER NOT NULL
) STRICT;

-- Each is good once, in place of a code of the app.
CREATE TABLE recovery_codes (
    operator_id TEXT    NOT NULL REFERENCES sign_ins (operator_id) ON DELETE CASCADE,
    hash        BLOB NOT NULL,
    PRIMARY KEY (operator_id, hash)
) STRICT;

-- Programs that an operator has signed in with before.
CREATE TABLE known_clients (
    operator_id  TEXT    NOT NULL REFERENCES sign_ins (operator_id) ON DELETE CASCADE,
    hash         BLOB NOT NULL,
    guesses_back INTEGER NOT NULL,
    seen_at      INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (operator_id, hash)
) STRICT;

-- With which an operator sets what he signs in with, once.
CREATE TABLE operator_invitations (
    operator_id TEXT    NOT NULL PRIMARY KEY REFERENCES operators (id) ON DELETE CASCADE,
    code_hash   BLOB NOT NULL UNIQUE,
    expires_at  INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

-- Times in which an operator is signed in. ends_at moves with each use, expires_at
-- does not. cookie is 0 or 1.
CREATE TABLE logins (
    id          TEXT    NOT NULL PRIMARY KEY,
    operator_id TEXT    NOT NULL REFERENCES operators (id) ON DELETE CASCADE,
    hash        BLOB NOT NULL UNIQUE,
    cookie      INTEGER NOT NULL,
    address     TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    seen_at     INTEGER NOT NULL,
    ends_at     INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX logins_own ON logins (operator_id, id);
CREATE INDEX logins_end ON logins (ends_at);

INSERT INTO settings (name, value) VALUES ('oldest_schema', '9') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
