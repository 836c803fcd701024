-- The cache. UNLOGGED: it writes no WAL, and is empty after a crash of PostgreSQL.

-- +goose Up

-- No index holds expires_at, because touch and set change it and an indexed column that changes ends HOT updates.
-- sweep_after is indexed instead: set and touch only ever lower it, which is rare; the cleaner deletes what has expired
-- among the rows whose sweep_after has passed, and moves it forward on the rest.
CREATE UNLOGGED TABLE morello.cache_entry (
    tenant        text COLLATE "C" NOT NULL,
    key           text COLLATE "C" NOT NULL,
    value         text        NOT NULL,             -- JSON with its tokens as sent: jsonb would respell numbers
    version       bigint      NOT NULL,
    ttl           interval,                         -- the original time to live; NULL: does not expire
    expires_at    timestamptz NOT NULL,             -- 'infinity': does not expire; '-infinity': a tombstone
    sweep_after   timestamptz NOT NULL,
    created_at    timestamptz NOT NULL,
    tags          text[],                           -- NULL when there are none
    replaced_tags text[],                           -- the tags before the last set, for that statement's own use
    PRIMARY KEY (tenant, key)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX cache_entry_sweep_after ON morello.cache_entry (sweep_after) WITH (fillfactor = 90);

-- One row for each tag of an entry, written in the statement that writes the entry. A row may outlive its entry's tag
-- when two sets of a key overlap: readers compare with the entry.
CREATE UNLOGGED TABLE morello.cache_tag (
    tenant text COLLATE "C" NOT NULL,
    tag    text COLLATE "C" NOT NULL,
    key    text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, tag, key)
);

-- Hits and misses of each tenant, added to by every worker once in two seconds.
CREATE TABLE morello.cache_counter (
    tenant text COLLATE "C" PRIMARY KEY,
    hits   bigint NOT NULL DEFAULT 0,
    misses bigint NOT NULL DEFAULT 0
);

-- +goose Down
DROP TABLE morello.cache_counter, morello.cache_tag, morello.cache_entry;
