-- +goose Up

-- What holds for one user whatever his plans say. NULL: what they say. 0 in speeds and
-- in the quota: none. own_regions: 1 when user_regions says which may be used, none of
-- them meaning all.
ALTER TABLE users ADD COLUMN max_devices INTEGER;
ALTER TABLE users ADD COLUMN max_sessions INTEGER;
ALTER TABLE users ADD COLUMN max_streams INTEGER;
ALTER TABLE users ADD COLUMN max_udp INTEGER;
ALTER TABLE users ADD COLUMN speed_up_bps INTEGER;
ALTER TABLE users ADD COLUMN speed_down_bps INTEGER;
ALTER TABLE users ADD COLUMN quota_bytes INTEGER;
ALTER TABLE users ADD COLUMN quota_period TEXT;
ALTER TABLE users ADD COLUMN own_regions INTEGER NOT NULL DEFAULT 0;

CREATE TABLE user_regions (
    user_id   TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    region_id TEXT NOT NULL REFERENCES regions (id) ON DELETE RESTRICT,
    PRIMARY KEY (user_id, region_id)
) STRICT;
CREATE INDEX user_regions_region ON user_regions (region_id);

INSERT INTO settings (name, value) VALUES ('oldest_schema', '9') ON CONFLICT (name) DO UPDATE SET value = excluded.value;
