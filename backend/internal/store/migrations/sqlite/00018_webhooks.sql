-- +goose Up

-- Who is told of what happens. events: types with spaces between them; empty: all.
-- disabled_why: empty, or why it is disabled. failing_since and failures are of the
-- attempts since the last one that went well.
CREATE TABLE webhooks (
    id            TEXT NOT NULL PRIMARY KEY,
    url           TEXT NOT NULL,
    description   TEXT NOT NULL,
    events        TEXT NOT NULL,
    disabled_at   INTEGER,
    disabled_why  TEXT NOT NULL,
    failing_since INTEGER,
    failures      INTEGER NOT NULL,
    succeeded_at  INTEGER,
    created_at    INTEGER NOT NULL
) STRICT;

-- What messages are signed with: the newest, and until ends_at the one before.
CREATE TABLE webhook_secrets (
    webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    sealed     BLOB NOT NULL,
    ends_at    INTEGER,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (webhook_id, generation)
) STRICT;

-- Messages, in the order of position for each object. state: pending, delivered or dead.
-- next_at of one that is being sent is when others may try. status is of HTTP, 0: none.
CREATE TABLE webhook_deliveries (
    position   INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,
    webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event_id   TEXT NOT NULL,
    type       TEXT NOT NULL,
    object_id  TEXT NOT NULL,
    payload    TEXT NOT NULL,
    state      TEXT NOT NULL,
    attempts   INTEGER NOT NULL,
    next_at    INTEGER NOT NULL,
    tried_at   INTEGER,
    ended_at   INTEGER,
    status     INTEGER NOT NULL,
    failure    TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook_id, next_at, position) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_order ON webhook_deliveries (webhook_id, object_id, position) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_list ON webhook_deliveries (webhook_id, state, id);
CREATE INDEX webhook_deliveries_all ON webhook_deliveries (webhook_id, id);
CREATE INDEX webhook_deliveries_end ON webhook_deliveries (ended_at) WHERE ended_at IS NOT NULL;

-- The end that webhooks were told of; 0: none yet. What has ended before is no news.
ALTER TABLE subscriptions ADD COLUMN end_told INTEGER NOT NULL DEFAULT 0;
UPDATE subscriptions SET end_told = ends_at WHERE ends_at IS NOT NULL AND ends_at <= CAST(unixepoch('subsec') * 1000000 AS INTEGER);
CREATE INDEX subscriptions_untold ON subscriptions (ends_at) WHERE ends_at IS NOT NULL AND ends_at <> end_told;

-- Since when they are down, as webhooks were told; NULL: they are not.
ALTER TABLE gateways ADD COLUMN down_at INTEGER;
UPDATE gateways SET down_at = lease_until WHERE lease_until <= CAST(unixepoch('subsec') * 1000000 AS INTEGER);
ALTER TABLE outline_servers ADD COLUMN down_at INTEGER;
UPDATE outline_servers SET down_at = health_since WHERE health = 'down';

-- How much of a quota is used when the next part of it is reached that is to be warned
-- of; 0: that is not known.
ALTER TABLE quotas ADD COLUMN warn_at INTEGER NOT NULL DEFAULT 0;

INSERT INTO settings (name, value) VALUES ('oldest_schema', '9') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
