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
