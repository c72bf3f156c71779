-- +goose Up

-- What of a subscription's quota is used in the present period: the sum of those
-- buckets that are from the first to before the other. Who books usage or gives out
-- quota holds the row. warned: the highest percentage that was warned of.
CREATE TABLE quotas (
    subscription_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES subscriptions (id) ON DELETE CASCADE,
    from_bucket     BIGINT NOT NULL,
    to_bucket       BIGINT NOT NULL,
    used            BIGINT NOT NULL,
    warned          BIGINT NOT NULL,
    counted_at      BIGINT NOT NULL
);
INSERT INTO quotas (subscription_id, from_bucket, to_bucket, used, warned, counted_at) SELECT id, 0, 0, 0, 0, 0 FROM subscriptions;

-- What a process of a gateway may move of a subscription: bytes since it began.
-- booked: what of it its usage reports have told. used: what it said itself.
CREATE TABLE quota_leases (
    subscription_id TEXT COLLATE "C" NOT NULL REFERENCES subscriptions (id) ON DELETE CASCADE,
    gateway_id      TEXT COLLATE "C" NOT NULL,
    boot_id         TEXT COLLATE "C" NOT NULL,
    version         BIGINT NOT NULL,
    allowance       BIGINT NOT NULL CHECK (allowance >= 0),
    booked          BIGINT NOT NULL CHECK (booked >= 0),
    used            BIGINT NOT NULL CHECK (used >= 0),
    ends_at         BIGINT NOT NULL,
    PRIMARY KEY (subscription_id, gateway_id, boot_id)
);
CREATE INDEX quota_leases_end ON quota_leases (ends_at);
