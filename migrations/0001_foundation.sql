-- What every capability stands on: who is at work, which replies are kept, when periodic jobs are due.

-- +goose Up

-- One row for each running worker and scheduler. leased_until is renewed by the database clock; who let it lapse is dead.
CREATE TABLE morello.worker_lease (
    instance     text COLLATE "C" PRIMARY KEY,
    program      text        NOT NULL,
    host         text        NOT NULL,
    started_at   timestamptz NOT NULL,
    leased_until timestamptz NOT NULL
);

-- Replies to requests that carried an Idempotency-Key, kept for 24 hours. key_hash is SHA-256 of the key, fingerprint of
-- operation and body; reply is sealed with a key that only the holder of the idempotency key can derive.
CREATE TABLE morello.idempotency_key (
    tenant      text COLLATE "C" NOT NULL,
    key_hash    bytea       NOT NULL,
    fingerprint bytea       NOT NULL,
    reply       bytea,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, key_hash)
);
CREATE INDEX idempotency_key_created_at ON morello.idempotency_key (created_at);

-- When each periodic job is due next, and who runs it: leased_until bounds one holder's time, epoch tells a holder that
-- it has lost its lease. counts is what the present run has done so far, written with each batch. report is what the last
-- run did; report_id is set as long as its event is not published.
CREATE TABLE morello.periodic_run (
    kind         text COLLATE "C" PRIMARY KEY,
    due_at       timestamptz NOT NULL,
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    epoch        bigint      NOT NULL DEFAULT 0,
    counts       jsonb       NOT NULL DEFAULT '{}',
    report       jsonb,
    report_id    text
);

-- +goose Down
DROP TABLE morello.periodic_run, morello.idempotency_key, morello.worker_lease;
