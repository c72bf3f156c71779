-- +goose Up

-- Actions on many objects. request is JSON without secrets; objects = done + failed
-- when nothing is left to do.
CREATE TABLE bulk_jobs (
    id          TEXT    NOT NULL PRIMARY KEY,
    operator_id TEXT    NOT NULL,
    request     TEXT    NOT NULL,
    objects     INTEGER NOT NULL,
    done        INTEGER NOT NULL,
    failed      INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

-- What an action is done to, in the order of position, from 1. They are of objects that
-- may go: no references. state: empty, done or failed. error: what was in the way, for
-- people.
CREATE TABLE bulk_objects (
    job_id    TEXT    NOT NULL REFERENCES bulk_jobs (id) ON DELETE CASCADE,
    position  INTEGER NOT NULL,
    user_id   TEXT    NOT NULL,
    user_name TEXT    NOT NULL,
    object_id TEXT    NOT NULL,
    state     TEXT    NOT NULL,
    error     TEXT    NOT NULL,
    PRIMARY KEY (job_id, position)
) STRICT;
CREATE INDEX bulk_objects_left ON bulk_objects (job_id, position) WHERE state = '';
CREATE INDEX bulk_objects_failed ON bulk_objects (job_id, position) WHERE state = 'failed';

-- Those that are asked for: users who are disabled, subscriptions that have ended.
CREATE INDEX users_disabled ON users (id) WHERE disabled_at IS NOT NULL;
CREATE INDEX subscriptions_end ON subscriptions (ends_at, user_id) WHERE ends_at IS NOT NULL;

INSERT INTO settings (name, value) VALUES ('oldest_schema', '9') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
