-- +goose Up

-- Actions on many objects. request is JSON without secrets; objects = done + failed
-- when nothing is left to do.
CREATE TABLE bulk_jobs (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    operator_id TEXT COLLATE "C" NOT NULL,
    request     TEXT COLLATE "C" NOT NULL,
    objects     BIGINT NOT NULL,
    done        BIGINT NOT NULL,
    failed      BIGINT NOT NULL,
    created_at  BIGINT NOT NULL
);

-- What an action is done to, in the order of position, from 1. They are of objects that
-- may go: no references. state: empty, done or failed. error: what was in the way, for
-- people.
CREATE TABLE bulk_objects (
    job_id    TEXT COLLATE "C" NOT NULL REFERENCES bulk_jobs (id) ON DELETE CASCADE,
    position  BIGINT NOT NULL,
    user_id   TEXT COLLATE "C" NOT NULL,
    user_name TEXT COLLATE "C" NOT NULL,
    object_id TEXT COLLATE "C" NOT NULL,
    state     TEXT COLLATE "C" NOT NULL,
    error     TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (job_id, position)
);
CREATE INDEX bulk_objects_left ON bulk_objects (job_id, position) WHERE state = '';
CREATE INDEX bulk_objects_failed ON bulk_objects (job_id, position) WHERE state = 'failed';

-- Those that are asked for: users who are disabled, subscriptions that have ended.
CREATE INDEX users_disabled ON users (id) WHERE disabled_at IS NOT NULL;
CREATE INDEX subscriptions_end ON subscriptions (ends_at, user_id) WHERE ends_at IS NOT NULL;

INSERT INTO settings (name, value) VALUES ('oldest_schema', '9') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
