package session

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Statement is what would be sent to PostgreSQL.
type Statement struct {
	SQL  string
	Args []any
}

// errCaught is what a catcher answers.
var errCaught = errors.New("caught")

// catcher keeps the last statement in place of running it.
type catcher struct{ Statement }

func (c *catcher) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	c.Statement = Statement{sql, args}
	return pgconn.CommandTag{}, errCaught
}

func (c *catcher) Query(_ context.Context, sql string, args ...any) (pgx.Rows, error) {
	c.Statement = Statement{sql, args}
	return nil, errCaught
}

func (c *catcher) QueryRow(_ context.Context, sql string, args ...any) pgx.Row {
	c.Statement = Statement{sql, args}
	return noRow{}
}

func (c *catcher) SendBatch(context.Context, *pgx.Batch) pgx.BatchResults {
	panic("no batch is expected")
}

type noRow struct{}

func (noRow) Scan(...any) error { return errCaught }

// catch returns the first statement that fn runs.
func catch(fn func(db postgres.Querier)) Statement {
	var c catcher
	fn(&c)
	return c.Statement
}

// The statements whose plans are tested, as they are sent.

// ListStatement reads the first page of a list.
func ListStatement(tenant string, m messages.SessionList) Statement {
	return catch(func(db postgres.Querier) { _, _ = readPage(context.Background(), db, tenant, m, listPlace{}) })
}

// ActiveCountStatement counts live sessions.
func ActiveCountStatement(tenant string, m messages.SessionActiveCount) Statement {
	return catch(func(db postgres.Querier) { _, _ = countActive(context.Background(), db, tenant, m) })
}

// AnalyticsStatement describes the sessions of some hours.
func AnalyticsStatement(tenant string, hours int) Statement {
	return Statement{analyticsSQL, []any{tenant, hours, defaultAnalyticsTop}}
}

// The statements of a look-up by token.
const (
	CurrentTokens = lookUpCurrent
	AnyTokens     = lookUpAny
)

// LookupStatement looks up tokens by one of the statements.
func LookupStatement(tenant, sql string, tokens ...string) Statement {
	var lookups []lookup
	for _, token := range tokens {
		lookups = append(lookups, newLookup(tenant, messages.SessionGetByToken{Token: token}))
	}
	return catch(func(db postgres.Querier) { _ = lookUp(context.Background(), db, sql, newWanted(lookups), nil) })
}

// UpdateStatement updates sessions in a batch.
func UpdateStatement(tenant string, ids ...string) Statement {
	var changes []change
	for _, id := range ids {
		changes = append(changes, change{tenant, messages.SessionUpdate{SessionID: id, Data: []byte(`{"a":1}`)}})
	}
	return catch(func(db postgres.Querier) { _ = updateSessions(context.Background(), db, changes, nil) })
}

// MarkStatement marks a batch of expired sessions, of all tenants or of one.
func MarkStatement(tenant *string) Statement {
	return catch(func(db postgres.Querier) { _, _ = markExpired(context.Background(), db, longAgo, tenant) })
}

// RemoveStatement removes a batch of sessions that ended so many days ago, of all tenants or of one.
func RemoveStatement(tenant *string, days float64) Statement {
	return catch(func(db postgres.Querier) {
		if tenant == nil {
			_, _ = removeOfAll(context.Background(), db, longAgo, days)
		} else {
			_, _ = removeOfTenant(context.Background(), db, *tenant, true, longAgo, days)
		}
	})
}

// DryRunStatement counts what a clean-up of a tenant would do.
func DryRunStatement(tenant string, days float64) Statement {
	return catch(func(db postgres.Querier) { _, _ = countInactive(context.Background(), db, tenant, days) })
}
