-- +goose Up

-- Who is told of what happens. events: types with spaces between them; empty: all.
-- disabled_why: empty, or why it is disabled. failing_since and failures are of the
-- attempts since the last one that went well.
CREATE TABLE webhooks (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    url           TEXT COLLATE "C" NOT NULL,
    description   TEXT COLLATE "C" NOT NULL,
    events        TEXT COLLATE "C" NOT NULL,
    disabled_at   BIGINT,
    disabled_why  TEXT COLLATE "C" NOT NULL,
    failing_since BIGINT,
    failures      BIGINT NOT NULL,
    succeeded_at  BIGINT,
    created_at    BIGINT NOT NULL
);

-- What messages are signed with: the newest, and until ends_at the one before.
CREATE TABLE webhook_secrets (
    webhook_id TEXT COLLATE "C" NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    generation BIGINT NOT NULL,
    sealed     BYTEA NOT NULL,
    ends_at    BIGINT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (webhook_id, generation)
);

-- Messages, in the order of position for each object. state: pending, delivered or dead.
-- next_at of one that is being sent is when others may try. status is of HTTP, 0: none.
CREATE TABLE webhook_deliveries (
    position   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id         TEXT COLLATE "C" NOT NULL UNIQUE,
    webhook_id TEXT COLLATE "C" NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event_id   TEXT COLLATE "C" NOT NULL,
    type       TEXT COLLATE "C" NOT NULL,
    object_id  TEXT COLLATE "C" NOT NULL,
    payload    TEXT COLLATE "C" NOT NULL,
    state      TEXT COLLATE "C" NOT NULL,
    attempts   BIGINT NOT NULL,
    next_at    BIGINT NOT NULL,
    tried_at   BIGINT,
    ended_at   BIGINT,
    status     BIGINT NOT NULL,
    failure    TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook_id, next_at, position) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_order ON webhook_deliveries (webhook_id, object_id, position) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_list ON webhook_deliveries (webhook_id, state, id);
CREATE INDEX webhook_deliveries_all ON webhook_deliveries (webhook_id, id);
CREATE INDEX webhook_deliveries_end ON webhook_deliveries (ended_at) WHERE ended_at IS NOT NULL;

-- The end that webhooks were told of; 0: none yet. What has ended before is no news.
ALTER TABLE subscriptions ADD COLUMN end_told BIGINT NOT NULL DEFAULT 0;
UPDATE subscriptions SET end_told = ends_at WHERE ends_at IS NOT NULL AND ends_at <= CAST(EXTRACT(EPOCH FROM now()) * 1000000 AS BIGINT);
CREATE INDEX subscriptions_untold ON subscriptions (ends_at) WHERE ends_at IS NOT NULL AND ends_at <> end_told;

-- Since when they are down, as webhooks were told; NULL: they are not.
ALTER TABLE gateways ADD COLUMN down_at BIGINT;
UPDATE gateways SET down_at = lease_until WHERE lease_until <= CAST(EXTRACT(EPOCH FROM now()) * 1000000 AS BIGINT);
ALTER TABLE outline_servers ADD COLUMN down_at BIGINT;
UPDATE outline_servers SET down_at = health_since WHERE health = 'down';

-- How much of a quota is used when the next part of it is reached that is to be warned
-- of; 0: that is not known.
ALTER TABLE quotas ADD COLUMN warn_at BIGINT NOT NULL DEFAULT 0;

INSERT INTO settings (name, value) VALUES ('oldest_schema', '9') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
