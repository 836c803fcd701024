-- What keeps the cache in shape: which keys are hot, where the cleaner's walks have got to.

-- +goose Up

-- Keys that are read often, sampled by every worker. reads is a sum that halves every minute, as of noted_at.
CREATE UNLOGGED TABLE morello.cache_hot_key (
    tenant   text COLLATE "C" NOT NULL,
    key      text COLLATE "C" NOT NULL,
    reads    float8      NOT NULL,
    noted_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, key)
);

-- Where the walks of the job cache_cleanup go on: one over the pages of cache_entry, that evicts when the cache is too
-- large, and one over the rows of cache_tag, that removes what has outlived its entry. One row.
CREATE UNLOGGED TABLE morello.cache_walk (
    only_one   boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    hand       bigint NOT NULL DEFAULT 0,
    tag_tenant text COLLATE "C" NOT NULL DEFAULT '',
    tag        text COLLATE "C" NOT NULL DEFAULT '',
    tag_key    text COLLATE "C" NOT NULL DEFAULT ''
);

-- +goose Down
DROP TABLE morello.cache_walk, morello.cache_hot_key;
