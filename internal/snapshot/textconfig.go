package snapshot

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/postgres"
)

// undefinedObject is what PostgreSQL answers for a text configuration that it does not have.
const undefinedObject = "42704"

// SetTextConfig says by which text configuration of PostgreSQL search tells words apart, such as simple or english, and reports
// whether that is a change. A change makes the index of words anew, and blocks creations meanwhile. It is idempotent; "morello
// migrate up" calls it.
func SetTextConfig(ctx context.Context, db postgres.Querier, name string) (changed bool, err error) {
	const differs = `SELECT morello.text_config()::oid <> $1::text::regconfig::oid, $1::text::regconfig::oid`
	var config uint32
	if err := db.QueryRow(ctx, differs, name).Scan(&changed, &config); err != nil {
		if postgres.SQLState(err) == undefinedObject {
			err = fmt.Errorf("MORELLO_TEXT_CONFIG: PostgreSQL has no text configuration %q: \\dF in psql lists them", name)
		}
		return false, err
	}
	if !changed {
		return false, nil
	}
	batch := &pgx.Batch{} // one transaction
	batch.Queue(fmt.Sprintf(`CREATE OR REPLACE FUNCTION morello.text_config() RETURNS regconfig LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT %d::regconfig'`, config))
	batch.Queue(`REINDEX INDEX morello.snapshot_words`)
	if err := db.SendBatch(ctx, batch).Close(); err != nil {
		return false, fmt.Errorf("changing the text configuration: %w", err)
	}
	return true, nil
}
