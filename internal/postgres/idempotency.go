package postgres

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/messages"
)

// once runs fn unless the idempotency key of the call has a reply already, which it returns then.
func once[Reply any](
	ctx context.Context, tx pgx.Tx, tenant string, fn func(ctx context.Context, db Querier) (Reply, error),
) (Reply, error) {
	var reply Reply
	call := messages.CallFrom(ctx)
	seal, err := newSeal(tenant, call.IdempotencyKey)
	if err != nil {
		return reply, err
	}
	claimed, err := claim(ctx, tx, tenant, call)
	if err != nil {
		return reply, err
	}
	if !claimed {
		stored, err := storedReply(ctx, tx, tenant, call)
		if err != nil {
			return reply, err
		}
		body, err := seal.open(stored)
		if err != nil {
			return reply, err
		}
		return reply, messages.DecodeReply(body, &reply)
	}
	if reply, err = fn(ctx, tx); err != nil {
		return reply, err
	}
	body, err := messages.Encode(reply)
	if err != nil {
		return reply, err
	}
	return reply, storeReply(ctx, tx, tenant, call, seal.close(body))
}

// claim takes the key for this transaction, and reports whether it is ours. It waits for another transaction that holds
// it. A key whose window has passed is free.
func claim(ctx context.Context, db Querier, tenant string, call *messages.Call) (bool, error) {
	const sql = `
		INSERT INTO morello.idempotency_key AS k (tenant, key_hash, fingerprint)
		VALUES ($1, $2, $3)
		ON CONFLICT (tenant, key_hash) DO UPDATE
			SET fingerprint = excluded.fingerprint, reply = NULL, created_at = now()
			WHERE k.created_at < now() - make_interval(secs => $4)`
	tag, err := db.Exec(ctx, sql, tenant, keyHash(call), call.Fingerprint[:], messages.IdempotencyWindow.Seconds())
	if err != nil {
		return false, fmt.Errorf("claiming the idempotency key: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

func storedReply(ctx context.Context, db Querier, tenant string, call *messages.Call) ([]byte, error) {
	const sql = `SELECT fingerprint, reply FROM morello.idempotency_key WHERE tenant = $1 AND key_hash = $2`
	var fingerprint, reply []byte
	if err := db.QueryRow(ctx, sql, tenant, keyHash(call)).Scan(&fingerprint, &reply); err != nil {
		return nil, fmt.Errorf("reading the stored reply: %w", err)
	}
	if !bytes.Equal(fingerprint, call.Fingerprint[:]) {
		return nil, &messages.Error{
			Code: messages.CodeConflict, Message: "the idempotency key was used for another request",
			Details: messages.ErrorDetails{Field: messages.HeaderIdempotencyKey},
		}
	}
	return reply, nil
}

func storeReply(ctx context.Context, db Querier, tenant string, call *messages.Call, sealed []byte) error {
	const sql = `UPDATE morello.idempotency_key SET reply = $3 WHERE tenant = $1 AND key_hash = $2`
	if _, err := db.Exec(ctx, sql, tenant, keyHash(call), sealed); err != nil {
		return fmt.Errorf("storing the reply: %w", err)
	}
	return nil
}

func keyHash(call *messages.Call) []byte {
	hash := sha256.Sum256([]byte(call.IdempotencyKey))
	return hash[:]
}

// seal encrypts stored replies, which can hold secrets such as a session token, with AES-256-GCM under a key derived
// from the idempotency key by HKDF (RFC 5869). The idempotency key itself is nowhere stored: who reads the table learns
// nothing.
type seal struct{ aead cipher.AEAD }

func newSeal(tenant, idempotencyKey string) (seal, error) {
	key, err := hkdf.Key(sha256.New, []byte(idempotencyKey), []byte(tenant), "morello idempotency reply", 32)
	if err != nil {
		return seal{}, fmt.Errorf("deriving the seal: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return seal{}, fmt.Errorf("making the seal: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return seal{aead}, err
}

func (s seal) close(body []byte) []byte { return s.aead.Seal(nil, nil, body, nil) }

func (s seal) open(sealed []byte) ([]byte, error) {
	body, err := s.aead.Open(nil, nil, sealed, nil)
	if err != nil {
		return nil, errors.New("the stored reply does not open with its idempotency key")
	}
	return body, nil
}

// CleanIdempotencyKeys deletes up to a batch of keys whose window has passed, and returns how many.
func CleanIdempotencyKeys(ctx context.Context, db Querier, batch int) (int64, error) {
	const sql = `
		DELETE FROM morello.idempotency_key
		WHERE ctid = ANY (ARRAY(
			SELECT ctid FROM morello.idempotency_key
			WHERE created_at < now() - make_interval(secs => $1)
			ORDER BY created_at LIMIT $2
			FOR UPDATE SKIP LOCKED))`
	tag, err := db.Exec(ctx, sql, messages.IdempotencyWindow.Seconds(), batch)
	return tag.RowsAffected(), err
}
