-- +goose Up

-- The plan that the subscription had when the row was made. Empty: unknown. totalled
-- grows with every write of a program that adds to usage_totals itself.
ALTER TABLE usage_buckets ADD COLUMN plan_id TEXT NOT NULL DEFAULT '';
ALTER TABLE usage_buckets ADD COLUMN totalled INTEGER NOT NULL DEFAULT 0;
UPDATE usage_buckets SET totalled = 1, plan_id = COALESCE((SELECT s.plan_id FROM subscriptions s WHERE s.id = usage_buckets.subscription_id), '');

-- The sum of usage_buckets over subscriptions: what is asked of the whole service, a
-- gateway, a region or a plan. It outlives all of these: no references.
CREATE TABLE usage_totals (
    bucket     INTEGER NOT NULL,
    gateway_id TEXT    NOT NULL,
    plan_id    TEXT    NOT NULL,
    region_id  TEXT    NOT NULL, -- of the gateway
    up         INTEGER NOT NULL CHECK (up >= 0),
    down       INTEGER NOT NULL CHECK (down >= 0),
    PRIMARY KEY (bucket, gateway_id, plan_id)
) STRICT;
CREATE INDEX usage_totals_gateway ON usage_totals (gateway_id, bucket);
CREATE INDEX usage_totals_region ON usage_totals (region_id, bucket);
CREATE INDEX usage_totals_plan ON usage_totals (plan_id, bucket);

-- In two halves, because counters of a gateway that lies can leave 64 bits.
INSERT INTO usage_totals (bucket, gateway_id, plan_id, region_id, up, down)
SELECT bucket, gateway_id, plan_id, region_id,
    CASE WHEN up_high + up_low / 4294967296 >= 1073741824 THEN 4611686018427387904 ELSE up_high * 4294967296 + up_low END,
    CASE WHEN down_high + down_low / 4294967296 >= 1073741824 THEN 4611686018427387904 ELSE down_high * 4294967296 + down_low END
FROM (SELECT b.bucket, b.gateway_id, b.plan_id, COALESCE(MAX(g.region_id), '') AS region_id,
        SUM(b.up / 4294967296) AS up_high, SUM(b.up % 4294967296) AS up_low,
        SUM(b.down / 4294967296) AS down_high, SUM(b.down % 4294967296) AS down_low
    FROM usage_buckets b LEFT JOIN gateways g ON g.id = b.gateway_id
    GROUP BY b.bucket, b.gateway_id, b.plan_id) AS booked;

-- A program from before this step, as beside a newer one during an update, adds to
-- usage_buckets alone: that is added here, too.
-- +goose StatementBegin
CREATE TRIGGER usage_buckets_inserted AFTER INSERT ON usage_buckets WHEN new.totalled = 0
BEGIN
    UPDATE usage_buckets SET totalled = 1, plan_id = COALESCE((SELECT s.plan_id FROM subscriptions s WHERE s.id = new.subscription_id), '')
    WHERE subscription_id = new.subscription_id AND bucket = new.bucket AND gateway_id = new.gateway_id;
    INSERT INTO usage_totals (bucket, gateway_id, plan_id, region_id, up, down) VALUES (
        new.bucket, new.gateway_id, COALESCE((SELECT s.plan_id FROM subscriptions s WHERE s.id = new.subscription_id), ''),
        COALESCE((SELECT g.region_id FROM gateways g WHERE g.id = new.gateway_id), ''), new.up, new.down)
    ON CONFLICT (bucket, gateway_id, plan_id) DO UPDATE SET up = usage_totals.up + excluded.up, down = usage_totals.down + excluded.down;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER usage_buckets_updated AFTER UPDATE OF up, down ON usage_buckets WHEN new.totalled = old.totalled
BEGIN
    UPDATE usage_totals SET up = up + new.up - old.up, down = down + new.down - old.down
    WHERE bucket = new.bucket AND gateway_id = new.gateway_id AND plan_id = new.plan_id;
END;
-- +goose StatementEnd

INSERT INTO settings (name, value) VALUES ('oldest_schema', '9') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
