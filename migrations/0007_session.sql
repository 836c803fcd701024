-- Sessions: who is at work, with a secret token, data of its own and an end.

-- +goose Up

-- A session lives while it has not ended, and now() < least(expires_at, last_seen_at + idle + least(60 s, idle / 10)). That
-- moment only ever moves forward. ended_at is set once: when the session is deleted, or when the cleaner finds it expired.
--
-- No index holds last_seen_at or expires_at, because a touch changes the one and a renewal the other, and an indexed column
-- that changes ends HOT updates. sweep_after is indexed instead: the session cannot be dead before it. The cleaner looks at
-- the rows whose sweep_after has passed, marks the dead ones, and moves it forward on the rest.
CREATE TABLE morello.session (
    tenant              text COLLATE "C" NOT NULL,
    session_id          uuid        NOT NULL,
    user_id             text COLLATE "C",
    agent_id            text COLLATE "C",
    data                jsonb       NOT NULL,
    metadata            jsonb       NOT NULL,
    size_bytes          integer     NOT NULL,       -- of data and metadata as text
    ip_address          text,
    user_agent          text,
    interaction_count   bigint      NOT NULL DEFAULT 0,
    version             bigint      NOT NULL DEFAULT 1,
    ttl                 interval    NOT NULL,       -- by which a renewal renews
    idle                interval,                   -- NULL: no idle timeout
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    last_seen_at        timestamptz NOT NULL,
    expires_at          timestamptz NOT NULL,
    absolute_expires_at timestamptz NOT NULL,
    sweep_after         timestamptz NOT NULL,
    ended_at            timestamptz,                -- for good: deleted, or expired and marked
    deleted             boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (tenant, session_id),
    CHECK (jsonb_typeof(data) = 'object' AND jsonb_typeof(metadata) = 'object'),
    CHECK (expires_at <= absolute_expires_at AND isfinite(absolute_expires_at)),
    CHECK (isfinite(created_at) AND isfinite(updated_at) AND isfinite(last_seen_at) AND isfinite(expires_at))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- What answers requests about sessions that have not ended is as large as their number, however many have ended. Those that have
-- are listed by how they ended.
CREATE INDEX session_updated ON morello.session (tenant, updated_at, session_id) WHERE ended_at IS NULL;
CREATE INDEX session_of_user ON morello.session (tenant, user_id, updated_at, session_id) WHERE ended_at IS NULL AND user_id IS NOT NULL;
CREATE INDEX session_of_agent ON morello.session (tenant, agent_id, updated_at, session_id) WHERE ended_at IS NULL AND agent_id IS NOT NULL;
CREATE INDEX session_sweep_after ON morello.session (sweep_after) WHERE ended_at IS NULL;
CREATE INDEX session_ended ON morello.session (tenant, deleted, updated_at, session_id) WHERE ended_at IS NOT NULL;
CREATE INDEX session_ended_of_user ON morello.session (tenant, user_id, deleted, updated_at, session_id) WHERE ended_at IS NOT NULL AND user_id IS NOT NULL;
CREATE INDEX session_ended_of_agent ON morello.session (tenant, agent_id, deleted, updated_at, session_id) WHERE ended_at IS NOT NULL AND agent_id IS NOT NULL;
CREATE INDEX session_ended_at ON morello.session (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX session_created_at ON morello.session (tenant, created_at);

-- The tokens of sessions, of which only the SHA-256 is known. generation counts those that a session was given and that were
-- used; there is at most one more, which was not used yet. The first use of a token sets valid_until on the ones before it; one
-- that comes later than that was stolen, or stolen from.
CREATE TABLE morello.session_token (
    tenant      text COLLATE "C" NOT NULL,
    token_hash  bytea       NOT NULL,
    session_id  uuid        NOT NULL,
    generation  integer     NOT NULL,
    used        boolean     NOT NULL,
    grace       interval    NOT NULL,               -- how long the ones before live on after the first use of this one
    valid_until timestamptz NOT NULL DEFAULT 'infinity',
    PRIMARY KEY (tenant, token_hash) INCLUDE (session_id, used, valid_until) -- a look-up need not read the table
);
CREATE INDEX session_token_session ON morello.session_token (tenant, session_id, generation);

-- json_merge_patch applies a JSON Merge Patch (RFC 7396, section 2): members of an object are merged one by one, null
-- removes one, anything else replaces.
-- +goose StatementBegin
CREATE FUNCTION morello.json_merge_patch(target jsonb, patch jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF jsonb_typeof(patch) IS DISTINCT FROM 'object' THEN
        RETURN patch;
    END IF;
    IF jsonb_typeof(target) IS DISTINCT FROM 'object' THEN
        target := '{}';
    END IF;
    RETURN (
        SELECT coalesce(jsonb_object_agg(merged.key, merged.value), '{}')
        FROM (
            SELECT t.key, t.value FROM jsonb_each(target) AS t WHERE NOT patch ? t.key
            UNION ALL
            SELECT p.key, CASE jsonb_typeof(p.value) WHEN 'object' THEN morello.json_merge_patch(target -> p.key, p.value) ELSE p.value END
            FROM jsonb_each(patch) AS p WHERE jsonb_typeof(p.value) <> 'null'
        ) AS merged
    );
END
$$;
-- +goose StatementEnd

-- json_bytes is the length of the text without white space between its tokens. PostgreSQL writes a space after each comma and
-- colon, so that outside of strings there are no others.
CREATE FUNCTION morello.json_bytes(value jsonb) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN octet_length(value::text) - (SELECT length(bare) - length(replace(bare, ' ', ''))
    FROM regexp_replace(value::text, '"(\\.|[^"\\])*"', '', 'g') AS bare);

-- +goose Down
DROP FUNCTION morello.json_bytes(jsonb);
DROP FUNCTION morello.json_merge_patch(jsonb, jsonb);
DROP TABLE morello.session_token, morello.session;
