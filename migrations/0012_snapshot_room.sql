-- Snapshots take less room on disk, and creations write less.

-- +goose Up

-- Snapshots of an agent are of different times, and of those of a tenant a few at most are of the same: the order needs no ids.
DROP INDEX morello.snapshot_created_at, morello.snapshot_of_agent;
CREATE INDEX snapshot_created_at ON morello.snapshot (tenant, created_at);
CREATE INDEX snapshot_of_agent ON morello.snapshot (tenant, agent_id, created_at);
-- While a table is small any index that begins with the tenant seems as good as the primary key, and of those that seem equal the
-- planner takes the one that was made last. A plan that is made then is kept for minutes in which the table grows.
ALTER TABLE morello.snapshot DROP CONSTRAINT snapshot_pkey, ADD PRIMARY KEY (tenant, snapshot_id);

-- The same words; but a number is made a text by a cast, which is immutable, where || was not, so that the planner can put the function's
-- body in its place: calling it for each row took longer than what it does.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION morello.snapshot_words(tenant text, seq bigint, text text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000 AS $$
    SELECT to_tsvector(morello.text_config(), text) || array_to_tsvector(ARRAY[' ' || tenant, ' #' || (seq >> 12)::text])
$$;
-- +goose StatementEnd
-- New words wait in a list that searches read too, and go into the index together: a few pages of them, so that neither takes long.
ALTER INDEX morello.snapshot_words SET (fastupdate = on, gin_pending_list_limit = 128);

-- Where all columns are PLAIN there is no TOAST table with its index. What these tables hold is short. A TOAST table that is there
-- goes when the table is written anew, which a change of a type does.
ALTER TABLE morello.snapshot_head
    ALTER COLUMN tenant SET STORAGE PLAIN, ALTER COLUMN agent_id SET STORAGE PLAIN,
    ALTER COLUMN tenant TYPE text COLLATE "C" USING tenant || '';
ALTER TABLE morello.snapshot_garbage
    ALTER COLUMN tenant SET STORAGE PLAIN,
    ALTER COLUMN tenant TYPE text COLLATE "C" USING tenant || '';

-- Sweeps that are under way begin anew, as after a crash. The mark of a chunk whose children have none yet is a row of its own, which
-- becomes another when they have: so one index finds both.
TRUNCATE morello.snapshot_sweep, morello.snapshot_mark;
DROP INDEX morello.snapshot_mark_open;
ALTER TABLE morello.snapshot_mark DROP CONSTRAINT snapshot_mark_pkey, ADD PRIMARY KEY (tenant, open, hash);
ALTER TABLE morello.snapshot_mark
    ALTER COLUMN tenant SET STORAGE PLAIN, ALTER COLUMN hash SET STORAGE PLAIN,
    ALTER COLUMN tenant TYPE text COLLATE "C" USING tenant || '';
ALTER TABLE morello.snapshot_sweep
    ALTER COLUMN tenant SET STORAGE PLAIN, ALTER COLUMN after SET STORAGE PLAIN,
    ALTER COLUMN tenant TYPE text COLLATE "C" USING tenant || '';

-- +goose Down
ALTER INDEX morello.snapshot_words SET (fastupdate = off), RESET (gin_pending_list_limit);
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION morello.snapshot_words(tenant text, seq bigint, text text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000 AS $$
    SELECT to_tsvector(morello.text_config(), text) || array_to_tsvector(ARRAY[' ' || tenant, ' #' || (seq >> 12)])
$$;
-- +goose StatementEnd
TRUNCATE morello.snapshot_sweep, morello.snapshot_mark;
ALTER TABLE morello.snapshot_sweep
    ALTER COLUMN tenant SET STORAGE EXTENDED, ALTER COLUMN after SET STORAGE EXTENDED,
    ALTER COLUMN tenant TYPE text COLLATE "C" USING tenant || '';
ALTER TABLE morello.snapshot_mark
    ALTER COLUMN tenant SET STORAGE EXTENDED, ALTER COLUMN hash SET STORAGE EXTENDED,
    ALTER COLUMN tenant TYPE text COLLATE "C" USING tenant || '';
ALTER TABLE morello.snapshot_mark DROP CONSTRAINT snapshot_mark_pkey, ADD PRIMARY KEY (tenant, hash);
CREATE INDEX snapshot_mark_open ON morello.snapshot_mark (tenant, hash) WHERE open;
ALTER TABLE morello.snapshot_garbage
    ALTER COLUMN tenant SET STORAGE EXTENDED,
    ALTER COLUMN tenant TYPE text COLLATE "C" USING tenant || '';
ALTER TABLE morello.snapshot_head
    ALTER COLUMN tenant SET STORAGE EXTENDED, ALTER COLUMN agent_id SET STORAGE EXTENDED,
    ALTER COLUMN tenant TYPE text COLLATE "C" USING tenant || '';
DROP INDEX morello.snapshot_created_at, morello.snapshot_of_agent;
CREATE INDEX snapshot_created_at ON morello.snapshot (tenant, created_at, snapshot_id);
CREATE INDEX snapshot_of_agent ON morello.snapshot (tenant, agent_id, created_at, snapshot_id);
