-- +goose Up

-- What an operator signs in with. last_step is the step of his app's codes that was
-- used last; guesses_back is when all guesses of his password will have come back that
-- strangers have used up.
CREATE TABLE sign_ins (
    operator_id  TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES operators (id) ON DELETE CASCADE,
    password     TEXT COLLATE "C" NOT NULL,
    sealed_totp  BYTEA NOT NULL,
    last_step    BIGINT NOT NULL,
    guesses_back BIGINT NOT NULL,
    failures     BIGINT NOT NULL,
    changed_at   BIGINT NOT NULL
);

-- Each is good once, in place of a code of the app.
CREATE TABLE recovery_codes (
    operator_id TEXT COLLATE "C" NOT NULL REFERENCES sign_ins (operator_id) ON DELETE CASCADE,
    hash        BYTEA NOT NULL,
    PRIMARY KEY (operator_id, hash)
);

-- Programs that an operator has signed in with before.
CREATE TABLE known_clients (
    operator_id  TEXT COLLATE "C" NOT NULL REFERENCES sign_ins (operator_id) ON DELETE CASCADE,
    hash         BYTEA NOT NULL,
    guesses_back BIGINT NOT NULL,
    seen_at      BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (operator_id, hash)
);

-- With which an operator sets what he signs in with, once.
CREATE TABLE operator_invitations (
    operator_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES operators (id) ON DELETE CASCADE,
    code_hash   BYTEA NOT NULL UNIQUE,
    expires_at  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL
);

-- Times in which an operator is signed in. ends_at moves with each use, expires_at
-- does not. cookie is 0 or 1.
CREATE TABLE logins (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    operator_id TEXT COLLATE "C" NOT NULL REFERENCES operators (id) ON DELETE CASCADE,
    hash        BYTEA NOT NULL UNIQUE,
    cookie      BIGINT NOT NULL,
    address     TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    seen_at     BIGINT NOT NULL,
    ends_at     BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL
);
CREATE INDEX logins_own ON logins (operator_id, id);
CREATE INDEX logins_end ON logins (ends_at);

INSERT INTO settings (name, value) VALUES ('oldest_schema', '9') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
