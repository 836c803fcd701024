-- Ended sessions are listed by how they ended; a look-up by token need not read the table of tokens.

-- +goose Up
DROP INDEX morello.session_ended;
CREATE INDEX session_ended ON morello.session (tenant, deleted, updated_at, session_id) WHERE ended_at IS NOT NULL;
CREATE INDEX session_ended_of_user ON morello.session (tenant, user_id, deleted, updated_at, session_id) WHERE ended_at IS NOT NULL AND user_id IS NOT NULL;
CREATE INDEX session_ended_of_agent ON morello.session (tenant, agent_id, deleted, updated_at, session_id) WHERE ended_at IS NOT NULL AND agent_id IS NOT NULL;
ALTER TABLE morello.session_token
    DROP CONSTRAINT session_token_pkey,
    ADD PRIMARY KEY (tenant, token_hash) INCLUDE (session_id, used, valid_until);

-- +goose Down
ALTER TABLE morello.session_token
    DROP CONSTRAINT session_token_pkey,
    ADD PRIMARY KEY (tenant, token_hash);
DROP INDEX morello.session_ended_of_agent, morello.session_ended_of_user, morello.session_ended;
CREATE INDEX session_ended ON morello.session (tenant, updated_at, session_id) WHERE ended_at IS NOT NULL;
