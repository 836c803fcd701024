package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Service answers the operations of transfers. All methods are safe for concurrent use.
type Service struct{ pool *postgres.Pool }

// New returns a service.
func New(pool *postgres.Pool) *Service { return &Service{pool} }

// Put stores a part, in place of the one that was there, if there was one.
func (s *Service) Put(ctx context.Context, tenant string, m messages.TransferPut) (messages.TransferPutReply, error) {
	return postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (messages.TransferPutReply, error) {
		return messages.TransferPutReply{ReceivedBytes: len(m.Data)}, put(ctx, db, tenant, m)
	})
}

// quotaConstraint holds what the parts of a tenant count together within messages.MaxTransferBytes.
const quotaConstraint = "transfer_quota"

// put writes a part and counts it. The row of the count, which all puts of a tenant share, is locked last and until the
// statement ends: the bytes are written by then.
func put(ctx context.Context, db postgres.Querier, tenant string, m messages.TransferPut) error {
	const sql = `
		WITH put AS (
			INSERT INTO morello.transfer_part AS p (tenant, transfer_id, part, data, counted, expires_at)
			VALUES ($1, $2, $3, $4::bytea, greatest($5::integer, octet_length($4::bytea)), now() + make_interval(secs => $6))
			ON CONFLICT (tenant, transfer_id, part) DO UPDATE
				SET data = excluded.data, counted = excluded.counted, replaced = p.counted, expires_at = excluded.expires_at
			RETURNING counted - replaced AS grown
		)
		INSERT INTO morello.transfer_usage AS u (tenant, bytes) SELECT $1, grown FROM put
		ON CONFLICT (tenant) DO UPDATE SET bytes = u.bytes + excluded.bytes`
	_, err := db.Exec(ctx, sql, tenant, m.TransferID, m.Part, m.Data, messages.TransferPartMinBytes, messages.TransferTTL.Seconds())
	if postgres.ViolatedConstraint(err) == quotaConstraint {
		return &messages.Error{Code: messages.CodeQuotaExceeded, Cause: err, Message: fmt.Sprintf(
			"the tenant's transfers would have more than %d bytes together; delete some, or wait until they expire", messages.MaxTransferBytes)}
	}
	return err
}

// Get returns a live part, and how many parts its transfer has.
func (s *Service) Get(ctx context.Context, tenant string, m messages.TransferGet) (messages.TransferGetReply, error) {
	if err := bus.Reserve(ctx, messages.TransferPartBytes); err != nil {
		return messages.TransferGetReply{}, err
	}
	const sql = `
		SELECT data, (
			SELECT max(part) + 1 FROM morello.transfer_part WHERE tenant = $1 AND transfer_id = $2 AND expires_at > now()
		)
		FROM morello.transfer_part WHERE tenant = $1 AND transfer_id = $2 AND part = $3 AND expires_at > now()`
	return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (reply messages.TransferGetReply, err error) {
		err = db.QueryRow(ctx, sql, tenant, m.TransferID, m.Part).Scan(&reply.Data, &reply.Parts)
		if errors.Is(err, pgx.ErrNoRows) {
			err = notFound("transfer_id", "there is no such part; a part lives for an hour")
		}
		return reply, err
	})
}

func notFound(field, message string) error {
	return &messages.Error{Code: messages.CodeNotFound, Message: message, Details: messages.ErrorDetails{Field: field}}
}

// Delete deletes all parts of a transfer. Of one that is not there, or has expired, it answers deleted:false.
func (s *Service) Delete(ctx context.Context, tenant string, m messages.TransferDelete) (messages.TransferDeleteReply, error) {
	const sql = `
		WITH removed AS (
			DELETE FROM morello.transfer_part WHERE tenant = $1 AND transfer_id = $2
			RETURNING counted, expires_at > now() AS live
		), freed AS (
			UPDATE morello.transfer_usage SET bytes = bytes - removed.counted
			FROM (SELECT sum(counted) AS counted FROM removed) AS removed
			WHERE tenant = $1 AND removed.counted IS NOT NULL
		)
		SELECT coalesce(bool_or(live), false) FROM removed`
	return postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (reply messages.TransferDeleteReply, err error) {
		err = db.QueryRow(ctx, sql, tenant, m.TransferID).Scan(&reply.Deleted)
		return reply, err
	})
}
