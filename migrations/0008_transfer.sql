-- Transfers: documents that are too large for one message, on their way in parts. UNLOGGED: they write no WAL, and are gone after
-- a crash of PostgreSQL, all of them with the count of their bytes.

-- +goose Up

-- A part that is put again replaces the one before. counted is what it counts in the tenant's quota, replaced what the part
-- counted that the last put replaced, for that statement's own use.
CREATE UNLOGGED TABLE morello.transfer_part (
    tenant      text COLLATE "C" NOT NULL,
    transfer_id uuid        NOT NULL,
    part        integer     NOT NULL CHECK (part >= 0),
    data        bytea       NOT NULL,
    counted     integer     NOT NULL,
    replaced    integer     NOT NULL DEFAULT 0,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant, transfer_id, part)
) WITH (autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05);
-- The bytes are compressed already, or would be for nothing.
ALTER TABLE morello.transfer_part ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE INDEX transfer_part_expires_at ON morello.transfer_part (expires_at);

-- What the parts of each tenant count together, kept by every statement that writes or removes parts. It is the last thing that
-- such a statement locks, so that the parts of a tenant are written side by side. The bound is messages.MaxTransferBytes.
CREATE UNLOGGED TABLE morello.transfer_usage (
    tenant text COLLATE "C" PRIMARY KEY,
    bytes  bigint NOT NULL CONSTRAINT transfer_quota CHECK (bytes <= 268435456)
) WITH (fillfactor = 20);

-- +goose Down
DROP TABLE morello.transfer_usage, morello.transfer_part;
