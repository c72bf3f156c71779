-- +goose Up

-- The terms of a plan. Speeds are bits per second of a session; NULL: none.
-- quota_warnings: percentages with spaces between them.
ALTER TABLE plans ADD COLUMN starts_on_first_use BIGINT NOT NULL DEFAULT 0;
ALTER TABLE plans ADD COLUMN speed_up_bps BIGINT CHECK (speed_up_bps >= 1);
ALTER TABLE plans ADD COLUMN speed_down_bps BIGINT CHECK (speed_down_bps >= 1);
ALTER TABLE plans ADD COLUMN quota_bytes BIGINT CHECK (quota_bytes >= 1);
ALTER TABLE plans ADD COLUMN quota_period TEXT COLLATE "C" NOT NULL DEFAULT 'none';
ALTER TABLE plans ADD COLUMN time_zone TEXT COLLATE "C" NOT NULL DEFAULT 'UTC';
ALTER TABLE plans ADD COLUMN quota_action TEXT COLLATE "C" NOT NULL DEFAULT 'block';
ALTER TABLE plans ADD COLUMN throttle_bps BIGINT CHECK (throttle_bps >= 1);
ALTER TABLE plans ADD COLUMN quota_warnings TEXT COLLATE "C" NOT NULL DEFAULT '80 95';

-- Where the gateways stand that a plan allows; none: anywhere.
CREATE TABLE plan_regions (
    plan_id   TEXT COLLATE "C" NOT NULL REFERENCES plans (id) ON DELETE CASCADE,
    region_id TEXT COLLATE "C" NOT NULL REFERENCES regions (id) ON DELETE RESTRICT,
    PRIMARY KEY (plan_id, region_id)
);
CREATE INDEX plan_regions_region ON plan_regions (region_id);

-- 1: the subscription begins with the first session. Until then starts_at is at the
-- end of times, so that nothing takes it for a running one.
ALTER TABLE subscriptions ADD COLUMN awaits_use BIGINT NOT NULL DEFAULT 0;
CREATE INDEX subscriptions_awaiting ON subscriptions (user_id, id) WHERE awaits_use = 1;
