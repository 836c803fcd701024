-- The registry: agents and workflows.

-- +goose Up

-- The words of a name and a description, for full text search, and as words that no text has, because they begin with a
-- space, the tenant and the tags: an index on them looks only at what is the tenant's and has the tag. A text of 16 KiB is
-- far from the limit of a tsvector, 1 MB. The cost is that of a long text: at the default the planner computed it for every
-- row of a tenant rather than use the index.
-- +goose StatementBegin
CREATE FUNCTION morello.registry_words(tenant text, name text, description text, tags text[]) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000 AS $$
    SELECT to_tsvector('pg_catalog.simple', name || ' ' || description)
        || array_to_tsvector(ARRAY[' ' || tenant] || ARRAY(SELECT ' #' || tag FROM unnest(tags) AS tag))
$$;
-- +goose StatementEnd
-- What searches the words: as web searches have it, and of a tag if it is not empty. A query without a word finds nothing.
-- +goose StatementBegin
CREATE FUNCTION morello.registry_query(tenant text, query text, tag text) RETURNS tsquery
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN numnode(websearch_to_tsquery('pg_catalog.simple', query)) = 0 THEN ''::tsquery
        WHEN tag = '' THEN (''' ' || tenant || '''')::tsquery && websearch_to_tsquery('pg_catalog.simple', query)
        ELSE (''' ' || tenant || ''' & '' #' || replace(replace(tag, '\', '\\'), '''', '''''') || '''')::tsquery
            && websearch_to_tsquery('pg_catalog.simple', query)
        END
$$;
-- +goose StatementEnd

-- size_bytes is about what the row has in a reply. Lists go by (created_at, id), which never change. Without fastupdate no
-- list of words waits in front of their index, through which every search would have to go.
CREATE TABLE morello.agent (
    tenant         text COLLATE "C" NOT NULL,
    agent_id       text COLLATE "C" NOT NULL,
    name           text COLLATE "C" NOT NULL,
    description    text        NOT NULL,
    type           text COLLATE "C" NOT NULL, -- empty for none
    capabilities   jsonb       NOT NULL,
    autonomy_level smallint    NOT NULL CHECK (autonomy_level BETWEEN 0 AND 5),
    model_config   jsonb       NOT NULL CHECK (jsonb_typeof(model_config) = 'object'),
    status         text COLLATE "C" NOT NULL CHECK (status IN ('active', 'inactive', 'archived')),
    metadata       jsonb       NOT NULL CHECK (jsonb_typeof(metadata) = 'object'),
    version        bigint      NOT NULL DEFAULT 1,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    size_bytes     integer     NOT NULL GENERATED ALWAYS AS (400 + octet_length(description)
        + octet_length(capabilities::text) + octet_length(model_config::text) + octet_length(metadata::text)) STORED,
    PRIMARY KEY (tenant, agent_id)
);
CREATE UNIQUE INDEX agent_name ON morello.agent (tenant, name);
CREATE INDEX agent_created_at ON morello.agent (tenant, created_at, agent_id);
CREATE INDEX agent_status ON morello.agent (tenant, status, created_at, agent_id);
CREATE INDEX agent_type ON morello.agent (tenant, type, created_at, agent_id);
CREATE INDEX agent_words ON morello.agent USING gin (morello.registry_words(tenant, name, description, '{}')) WITH (fastupdate = off);

CREATE TABLE morello.workflow (
    tenant      text COLLATE "C" NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    name        text COLLATE "C" NOT NULL,
    description text        NOT NULL,
    definition  jsonb       NOT NULL,
    status      text COLLATE "C" NOT NULL CHECK (status IN ('draft', 'active', 'paused', 'completed', 'failed')),
    tags        text[]      NOT NULL,
    created_by  text        NOT NULL, -- empty for nobody
    metadata    jsonb       NOT NULL CHECK (jsonb_typeof(metadata) = 'object'),
    version     bigint      NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    size_bytes  integer     NOT NULL GENERATED ALWAYS AS (400 + octet_length(description)
        + octet_length(definition::text) + octet_length(metadata::text)) STORED,
    PRIMARY KEY (tenant, workflow_id)
);
CREATE INDEX workflow_name ON morello.workflow (tenant, name, created_at, workflow_id);
CREATE INDEX workflow_created_at ON morello.workflow (tenant, created_at, workflow_id);
CREATE INDEX workflow_status ON morello.workflow (tenant, status, created_at, workflow_id);
CREATE INDEX workflow_words ON morello.workflow USING gin (morello.registry_words(tenant, name, description, tags)) WITH (fastupdate = off);

-- One row for each tag of a workflow, in the order of lists, for those that name a tag and no words. A row may outlive its tag when two updates of a workflow
-- overlap: readers compare with the workflow.
CREATE TABLE morello.workflow_tag (
    tenant      text COLLATE "C" NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    tag         text COLLATE "C" NOT NULL,
    created_at  timestamptz NOT NULL, -- of the workflow
    PRIMARY KEY (tenant, workflow_id, tag),
    FOREIGN KEY (tenant, workflow_id) REFERENCES morello.workflow ON DELETE CASCADE
);
CREATE INDEX workflow_tag_tag ON morello.workflow_tag (tenant, tag, created_at, workflow_id);

-- +goose Down
DROP TABLE morello.workflow_tag, morello.workflow, morello.agent;
DROP FUNCTION morello.registry_words, morello.registry_query;
