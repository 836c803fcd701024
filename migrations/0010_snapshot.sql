-- Snapshots of agents' memory: documents as Merkle trees of chunks. docs/snapshot-format.md describes what the bytes mean.

-- +goose Up

-- +goose StatementBegin
-- Ends a statement, and its transaction, with an error of this SQLSTATE, which the caller understands.
CREATE FUNCTION morello.refuse(code text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'refused' USING ERRCODE = code;
END $$;
-- +goose StatementEnd

CREATE TABLE morello.snapshot (
    tenant            text COLLATE "C" NOT NULL,
    snapshot_id       uuid        NOT NULL,
    agent_id          text COLLATE "C" NOT NULL,
    user_id           text COLLATE "C",
    parent_id         uuid,                       -- what it follows, also when that is deleted
    ancestor_id       uuid,                       -- the nearest of its ancestors that is left
    label             text COLLATE "C",
    metadata          jsonb       NOT NULL,
    vector_ids        text[]      NOT NULL,
    size_bytes        integer     NOT NULL,       -- of metadata and vector_ids, as text
    content_hash      bytea       NOT NULL,       -- the root of the tree
    document_sha256   bytea       NOT NULL,
    document_bytes    bigint      NOT NULL,
    stored_bytes      bigint      NOT NULL,
    partially_indexed boolean     NOT NULL,
    restored_from     uuid,
    created_at        timestamptz NOT NULL,
    PRIMARY KEY (tenant, snapshot_id)
);
CREATE INDEX snapshot_created_at ON morello.snapshot (tenant, created_at, snapshot_id);
CREATE INDEX snapshot_of_agent ON morello.snapshot (tenant, agent_id, created_at, snapshot_id);
CREATE INDEX snapshot_of_user ON morello.snapshot (tenant, user_id, created_at, snapshot_id) WHERE user_id IS NOT NULL;
CREATE INDEX snapshot_labelled ON morello.snapshot (tenant, label, created_at, snapshot_id) WHERE label IS NOT NULL;
CREATE INDEX snapshot_ancestor ON morello.snapshot (tenant, ancestor_id) WHERE ancestor_id IS NOT NULL;

-- The newest snapshot of each agent. Who creates or deletes snapshots of an agent locks its row first. last_at only grows, so that
-- every snapshot of an agent is later than the ones before it; previous_id is the head before, for the statements of the
-- transaction that moved it.
CREATE TABLE morello.snapshot_head (
    tenant      text COLLATE "C" NOT NULL,
    agent_id    text COLLATE "C" NOT NULL,
    snapshot_id uuid,                             -- NULL: all were deleted
    previous_id uuid,
    last_at     timestamptz NOT NULL,
    PRIMARY KEY (tenant, agent_id)
) WITH (fillfactor = 50);

-- A chunk of documents, whose hash is its name. nodes and leaves are the hashes of its children, one after the other. Short texts
-- are stored as text, which search reads as it is; PostgreSQL compresses it in its row.
CREATE TABLE morello.snapshot_chunk (
    tenant     text COLLATE "C" NOT NULL,
    hash       bytea       NOT NULL,
    touched_at timestamptz NOT NULL,              -- when it was written last, also if it was there already
    encoding   smallint    NOT NULL,
    nodes      bytea,
    leaves     bytea,
    body       bytea,
    text       text,
    seq        bigint GENERATED ALWAYS AS IDENTITY, -- grows: what is new has a high one
    PRIMARY KEY (tenant, hash)
) WITH (toast_tuple_target = 128, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE morello.snapshot_chunk
    ALTER COLUMN hash SET STORAGE PLAIN, ALTER COLUMN nodes SET STORAGE EXTERNAL, ALTER COLUMN leaves SET STORAGE EXTERNAL,
    ALTER COLUMN body SET STORAGE EXTERNAL, ALTER COLUMN text SET STORAGE MAIN;

-- +goose StatementBegin
-- The hashes in a column nodes or leaves.
CREATE FUNCTION morello.snapshot_hashes(joined bytea) RETURNS SETOF bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE ROWS 16 AS $$
    SELECT substr(joined, at, 32) FROM generate_series(1, length(joined), 32) AS at
$$;
-- +goose StatementEnd

-- The text configuration of PostgreSQL by which words are told apart. Who changes it makes the index snapshot_words anew.
-- +goose StatementBegin
CREATE FUNCTION morello.text_config() RETURNS regconfig LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT 'pg_catalog.simple'::regconfig $$;
-- +goose StatementEnd
-- The words of a chunk, with two that no text has, because they begin with a space: its tenant, so that a search reads nothing of
-- another's, and its stretch of 4096 chunks, so that a search for a common word can begin with the newest.
-- +goose StatementBegin
CREATE FUNCTION morello.snapshot_words(tenant text, seq bigint, text text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000 AS $$
    SELECT to_tsvector(morello.text_config(), text) || array_to_tsvector(ARRAY[' ' || tenant, ' #' || (seq >> 12)])
$$;
-- +goose StatementEnd
CREATE INDEX snapshot_words ON morello.snapshot_chunk USING gin (morello.snapshot_words(tenant, seq, text))
    WITH (fastupdate = off) WHERE text IS NOT NULL;

-- Which agents have, or had, a chunk in which search finds something.
CREATE TABLE morello.snapshot_text (
    tenant   text COLLATE "C" NOT NULL,
    hash     bytea NOT NULL,
    agent_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, hash, agent_id)
);

-- Where a sweep of a tenant's chunks stands. A tenant has a row from a deletion on until a sweep that began the grace after it has
-- ended. The marks of a sweep and where it stands are UNLOGGED: after a crash both are gone, and it begins anew.
CREATE TABLE morello.snapshot_garbage (
    tenant     text COLLATE "C" PRIMARY KEY,
    deleted_at timestamptz NOT NULL               -- the last deletion
);
CREATE UNLOGGED TABLE morello.snapshot_sweep (
    tenant     text COLLATE "C" PRIMARY KEY,
    started_at timestamptz NOT NULL,
    marked     boolean     NOT NULL DEFAULT false, -- all that is reached has a mark
    after      bytea       NOT NULL DEFAULT ''     -- the last hash that was looked at
);
CREATE UNLOGGED TABLE morello.snapshot_mark (
    tenant text COLLATE "C" NOT NULL,
    hash   bytea   NOT NULL,
    open   boolean NOT NULL,                      -- its children have no marks yet
    PRIMARY KEY (tenant, hash)
);
CREATE INDEX snapshot_mark_open ON morello.snapshot_mark (tenant, hash) WHERE open;

-- +goose Down
DROP TABLE morello.snapshot_mark, morello.snapshot_sweep, morello.snapshot_garbage, morello.snapshot_text, morello.snapshot_chunk,
    morello.snapshot_head, morello.snapshot;
DROP FUNCTION morello.snapshot_words(text, bigint, text), morello.text_config(), morello.snapshot_hashes(bytea), morello.refuse(text);
