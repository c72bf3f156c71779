-- +goose Up

-- The plan that the subscription had when the row was made. Empty: unknown. totalled
-- grows with every write of a program that adds to usage_totals itself.
ALTER TABLE usage_buckets ADD COLUMN plan_id TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE usage_buckets ADD COLUMN totalled BIGINT NOT NULL DEFAULT 0;
UPDATE usage_buckets SET totalled = 1, plan_id = COALESCE((SELECT s.plan_id FROM subscriptions s WHERE s.id = usage_buckets.subscription_id), '');

-- The sum of usage_buckets over subscriptions: what is asked of the whole service, a
-- gateway, a region or a plan. It outlives all of these: no references.
CREATE TABLE usage_totals (
    bucket     BIGINT NOT NULL,
    gateway_id TEXT COLLATE "C" NOT NULL,
    plan_id    TEXT COLLATE "C" NOT NULL,
    region_id  TEXT COLLATE "C" NOT NULL, -- of the gateway
    up         BIGINT NOT NULL CHECK (up >= 0),
    down       BIGINT NOT NULL CHECK (down >= 0),
    PRIMARY KEY (bucket, gateway_id, plan_id)
);
CREATE INDEX usage_totals_gateway ON usage_totals (gateway_id, bucket);
CREATE INDEX usage_totals_region ON usage_totals (region_id, bucket);
CREATE INDEX usage_totals_plan ON usage_totals (plan_id, bucket);

-- Counters of a gateway that lies can leave 64 bits.
INSERT INTO usage_totals (bucket, gateway_id, plan_id, region_id, up, down)
SELECT b.bucket, b.gateway_id, b.plan_id, COALESCE(MAX(g.region_id), ''),
    CAST(LEAST(SUM(b.up), 4611686018427387904) AS BIGINT), CAST(LEAST(SUM(b.down), 4611686018427387904) AS BIGINT)
FROM usage_buckets b LEFT JOIN gateways g ON g.id = b.gateway_id
GROUP BY b.bucket, b.gateway_id, b.plan_id;

-- A program from before this step, as beside a newer one during an update, adds to
-- usage_buckets alone: that is added here, too.
-- +goose StatementBegin
CREATE FUNCTION usage_buckets_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    plan TEXT := COALESCE((SELECT s.plan_id FROM subscriptions s WHERE s.id = NEW.subscription_id), '');
BEGIN
    UPDATE usage_buckets SET totalled = 1, plan_id = plan
    WHERE subscription_id = NEW.subscription_id AND bucket = NEW.bucket AND gateway_id = NEW.gateway_id;
    INSERT INTO usage_totals (bucket, gateway_id, plan_id, region_id, up, down) VALUES (
        NEW.bucket, NEW.gateway_id, plan, COALESCE((SELECT g.region_id FROM gateways g WHERE g.id = NEW.gateway_id), ''), NEW.up, NEW.down)
    ON CONFLICT (bucket, gateway_id, plan_id) DO UPDATE SET up = usage_totals.up + excluded.up, down = usage_totals.down + excluded.down;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION usage_buckets_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE usage_totals SET up = up + NEW.up - OLD.up, down = down + NEW.down - OLD.down
    WHERE bucket = NEW.bucket AND gateway_id = NEW.gateway_id AND plan_id = NEW.plan_id;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER usage_buckets_inserted AFTER INSERT ON usage_buckets
    FOR EACH ROW WHEN (NEW.totalled = 0) EXECUTE FUNCTION usage_buckets_inserted();
CREATE TRIGGER usage_buckets_updated AFTER UPDATE OF up, down ON usage_buckets
    FOR EACH ROW WHEN (NEW.totalled = OLD.totalled) EXECUTE FUNCTION usage_buckets_updated();

INSERT INTO settings (name, value) VALUES ('oldest_schema', '9') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
