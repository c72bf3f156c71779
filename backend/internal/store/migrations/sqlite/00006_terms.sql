-- +goose Up

-- The terms of a plan. Speeds are bits per second of a session; NULL: none.
-- quota_warnings: percentages with spaces between them.
ALTER TABLE plans ADD COLUMN starts_on_first_use INTEGER NOT NULL DEFAULT 0;
ALTER TABLE plans ADD COLUMN speed_up_bps INTEGER CHECK (speed_up_bps >= 1);
ALTER TABLE plans ADD COLUMN speed_down_bps INTEGER CHECK (speed_down_bps >= 1);
ALTER TABLE plans ADD COLUMN quota_bytes INTEGER CHECK (quota_bytes >= 1);
ALTER TABLE plans ADD COLUMN quota_period TEXT NOT NULL DEFAULT 'none';
ALTER TABLE plans ADD COLUMN time_zone TEXT NOT NULL DEFAULT 'UTC';
ALTER TABLE plans ADD COLUMN quota_action TEXT NOT NULL DEFAULT 'block';
ALTER TABLE plans ADD COLUMN throttle_bps INTEGER CHECK (throttle_bps >= 1);
ALTER TABLE plans ADD COLUMN quota_warnings TEXT NOT NULL DEFAULT '80 95';

-- Where the gateways stand that a plan allows; none: anywhere.
CREATE TABLE plan_regions (
    plan_id   TEXT NOT NULL REFERENCES plans (id) ON DELETE CASCADE,
    region_id TEXT NOT NULL REFERENCES regions (id) ON DELETE RESTRICT,
    PRIMARY KEY (plan_id, region_id)
) STRICT;
CREATE INDEX plan_regions_region ON plan_regions (region_id);

-- 1: the subscription begins with the first session. Until then starts_at is at the
-- end of times, so that nothing takes it for a running one.
ALTER TABLE subscriptions ADD COLUMN awaits_use INTEGER NOT NULL DEFAULT 0;
CREATE INDEX subscriptions_awaiting ON subscriptions (user_id, id) WHERE awaits_use = 1;
