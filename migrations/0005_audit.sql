-- The audit trail: append-only, in a partition for each month.

-- +goose Up

-- An id of version 7 (RFC 9562) by the database's clock, for want of uuidv7() before PostgreSQL 18.
-- +goose StatementBegin
CREATE FUNCTION morello.new_uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
            52, 1), 53, 1), 'hex')::uuid
$$;
-- +goose StatementEnd

-- size_bytes is about what the entry has in a reply. Filters that few entries have a value for are NULL without one.
CREATE TABLE morello.audit_entry (
    tenant        text COLLATE "C" NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    entry_id      uuid        NOT NULL DEFAULT morello.new_uuid_v7(),
    event_type    text COLLATE "C" NOT NULL,
    actor         text COLLATE "C" NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    resource_id   text COLLATE "C" NOT NULL,
    details       jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(details) = 'object'),
    ip_address    text COLLATE "C",
    user_agent    text COLLATE "C",
    size_bytes    integer     NOT NULL GENERATED ALWAYS AS (300 + octet_length(details::text)) STORED,
    PRIMARY KEY (tenant, created_at, entry_id)
) PARTITION BY RANGE (created_at);
CREATE INDEX audit_entry_event_type ON morello.audit_entry (tenant, event_type, created_at, entry_id);
CREATE INDEX audit_entry_actor ON morello.audit_entry (tenant, actor, created_at, entry_id);
CREATE INDEX audit_entry_resource_type ON morello.audit_entry (tenant, resource_type, created_at, entry_id);
CREATE INDEX audit_entry_resource_id ON morello.audit_entry (tenant, resource_id, created_at, entry_id);
CREATE INDEX audit_entry_ip_address ON morello.audit_entry (tenant, ip_address, created_at, entry_id) WHERE ip_address IS NOT NULL;
CREATE INDEX audit_entry_user_agent ON morello.audit_entry (tenant, user_agent, created_at, entry_id) WHERE user_agent IS NOT NULL;
-- For audit_expire, which ranges over tenants.
CREATE INDEX audit_entry_created_at ON morello.audit_entry USING brin (created_at) WITH (autosummarize = true);

-- Refuses every UPDATE, TRUNCATE and DELETE but the DELETE of audit_expire: it runs as the owner of the table, says in
-- morello.audit_expire_before what it deletes, and deletes nothing else.
-- +goose StatementBegin
CREATE FUNCTION morello.audit_refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    expire_before timestamptz := nullif(current_setting('morello.audit_expire_before', true), '');
BEGIN
    IF TG_OP = 'DELETE' THEN -- alone, because TRUNCATE has no OLD
        IF OLD.created_at < expire_before
            AND current_user = (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'morello.audit_entry'::regclass) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'the audit trail is append-only: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END
$$;
-- +goose StatementEnd
CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE ON morello.audit_entry
    FOR EACH ROW EXECUTE FUNCTION morello.audit_refuse_change(); -- partitions inherit it
CREATE TRIGGER audit_entry_no_truncate BEFORE TRUNCATE ON morello.audit_entry
    FOR EACH STATEMENT EXECUTE FUNCTION morello.audit_refuse_change(); -- partitions do not

-- The net: what no partition of a month takes, so that an insert never fails for want of one.
CREATE TABLE morello.audit_entry_default PARTITION OF morello.audit_entry DEFAULT;
CREATE TRIGGER audit_entry_no_truncate BEFORE TRUNCATE ON morello.audit_entry_default
    FOR EACH STATEMENT EXECUTE FUNCTION morello.audit_refuse_change();

-- Makes the partitions of the present month, in UTC, and the following ones that are missing, and returns how many. A month
-- of which the net holds entries already stays there. ATTACH locks the trail less than CREATE … PARTITION OF.
-- +goose StatementBegin
CREATE FUNCTION morello.audit_make_partitions(ahead integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '3s' AS $$
DECLARE
    first timestamptz;
    after timestamptz;
    name text;
    made integer := 0;
BEGIN
    FOR n IN 0 .. ahead LOOP
        first := date_trunc('month', now()) + make_interval(months => n);
        after := first + interval '1 month';
        name := 'audit_entry_' || to_char(first, 'YYYY_MM');
        CONTINUE WHEN to_regclass('morello.' || name) IS NOT NULL;
        CONTINUE WHEN EXISTS (SELECT FROM morello.audit_entry_default WHERE created_at >= first AND created_at < after);
        EXECUTE format('CREATE TABLE morello.%I (LIKE morello.audit_entry INCLUDING ALL)', name);
        EXECUTE format('CREATE TRIGGER audit_entry_no_truncate BEFORE TRUNCATE ON morello.%I
            FOR EACH STATEMENT EXECUTE FUNCTION morello.audit_refuse_change()', name);
        EXECUTE format('ALTER TABLE morello.audit_entry ATTACH PARTITION morello.%I FOR VALUES FROM (%L) TO (%L)', name, first, after);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;
-- +goose StatementEnd

-- Drops the oldest partition of a month if the month ended at or before the time, and returns whether it did.
-- +goose StatementBegin
CREATE FUNCTION morello.audit_drop_partition(expire_before timestamptz) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '3s' AS $$
DECLARE
    name text;
BEGIN
    SELECT c.relname INTO name
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'morello.audit_entry'::regclass AND c.relname ~ '^audit_entry_\d{4}_\d\d$'
    ORDER BY c.relname LIMIT 1;
    IF name IS NULL OR to_timestamp(right(name, 7), 'YYYY_MM') + interval '1 month' > expire_before THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE morello.%I', name);
    RETURN true;
END
$$;
-- +goose StatementEnd

-- Deletes up to a batch of the entries from before the time, of all tenants, and returns how many.
-- +goose StatementBegin
CREATE FUNCTION morello.audit_expire(expire_before timestamptz, batch integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET morello.audit_expire_before = '' AS $$
DECLARE
    removed bigint;
BEGIN
    PERFORM set_config('morello.audit_expire_before', expire_before::text, true);
    DELETE FROM morello.audit_entry
    WHERE created_at < expire_before AND (tenant, created_at, entry_id) IN (
        SELECT tenant, created_at, entry_id FROM morello.audit_entry WHERE created_at < expire_before LIMIT batch);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$;
-- +goose StatementEnd

-- What makes, drops and deletes is for the owner, and for whom the owner grants it to: the role of the scheduler.
REVOKE ALL ON FUNCTION morello.audit_make_partitions, morello.audit_drop_partition, morello.audit_expire FROM PUBLIC;

SELECT morello.audit_make_partitions(3);

-- +goose Down
DROP TABLE morello.audit_entry;
DROP FUNCTION morello.audit_make_partitions, morello.audit_drop_partition, morello.audit_expire, morello.audit_refuse_change, morello.new_uuid_v7;
