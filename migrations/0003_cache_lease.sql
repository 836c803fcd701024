-- Leases of the cache: of all who miss a key at once, one computes its value.

-- +goose Up

-- seen_version is the version of the expired entry that stood there when the lease was given, 0 for none. An entry that is
-- newer was set by somebody else, and ends the lease; so no set has to write here.
CREATE UNLOGGED TABLE morello.cache_lease (
    tenant       text COLLATE "C" NOT NULL,
    key          text COLLATE "C" NOT NULL,
    token        uuid        NOT NULL,
    seen_version bigint      NOT NULL,
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant, key)
);

-- +goose Down
DROP TABLE morello.cache_lease;
