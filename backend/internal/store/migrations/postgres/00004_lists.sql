-- +goose Up

-- Parts of lists are read in the order of an index that begins with what they are
-- selected by, so that they cost the same however long the list is.
CREATE INDEX devices_user_order ON devices (user_id, id);
CREATE INDEX subscriptions_user_order ON subscriptions (user_id, id);
CREATE INDEX invitations_user_order ON invitations (user_id, id);
CREATE INDEX gateways_region_order ON gateways (region_id, id);
CREATE INDEX sessions_live_order ON sessions (started_at, id) WHERE ended_at IS NULL;
CREATE INDEX sessions_user_order ON sessions (user_id, started_at, id);
CREATE INDEX sessions_device_order ON sessions (device_id, started_at, id);
CREATE INDEX sessions_gateway_order ON sessions (gateway_id, started_at, id);

-- Beginnings of names, whatever the case of ASCII letters.
CREATE INDEX users_search ON users (lower(name COLLATE "C"), id);
CREATE INDEX devices_search ON devices (lower(name COLLATE "C"), id);

-- What these replace.
DROP INDEX devices_user;
DROP INDEX subscriptions_user;
DROP INDEX invitations_user;
DROP INDEX gateways_region;
