-- Clearing by tag ends leases: also the lease of a value whose tags only its holder knows.

-- +goose Up

-- The tags that were cleared a short while ago. A set with a lease that was granted before is refused. all_tags are the tags that an
-- entry must have to be meant: the tag itself, or all tags of a clear with match "all", of which one names the row. clear_number orders
-- clears and leases without a clock. The cleaner removes rows that are older than
-- any lease.
CREATE SEQUENCE morello.cache_clear_number;
SELECT setval('morello.cache_clear_number', 1);   -- so that its last value is always one that was given
CREATE UNLOGGED TABLE morello.cache_cleared_tag (
    tenant       text COLLATE "C" NOT NULL,
    tag          text COLLATE "C" NOT NULL,
    clear_number bigint      NOT NULL,
    all_tags     text[]      NOT NULL,
    cleared_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant, tag, clear_number)
);
CREATE INDEX cache_cleared_tag_cleared_at ON morello.cache_cleared_tag (cleared_at);

-- clear_number is that of the last clear before the lease was granted. tags are those of the expired or deleted entry that it was granted
-- for: clearing one of them ends the lease. A lease can be renewed for an hour from granted_at.
ALTER TABLE morello.cache_lease
    ADD COLUMN clear_number bigint NOT NULL DEFAULT 0,
    ADD COLUMN tags text[],
    ADD COLUMN granted_at timestamptz NOT NULL DEFAULT now();

-- +goose Down
ALTER TABLE morello.cache_lease DROP COLUMN granted_at, DROP COLUMN tags, DROP COLUMN clear_number;
DROP TABLE morello.cache_cleared_tag;
DROP SEQUENCE morello.cache_clear_number;
