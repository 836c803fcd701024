package devstack

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// CreateDatabase makes a database as a copy of template (default template1). Nobody may be connected to the template: the
// server waits five seconds for connections to it to end, then refuses.
//
// FILE_COPY suits clones of a small template better than WAL_LOG, the default: on PostgreSQL 15 without fsync, which is how
// tests run, a clone of 60 tables took 26 ms against 41, and dropping it 13 ms against 29.
func (p *Postgres) CreateDatabase(ctx context.Context, name, template string) error {
	if template == "" {
		template = "template1"
	}
	return p.administer(ctx, fmt.Sprintf(`CREATE DATABASE %s TEMPLATE %s STRATEGY FILE_COPY`, quote(name), quote(template)))
}

// DropDatabase removes a database and ends the connections to it. A database that does not exist is no error.
func (p *Postgres) DropDatabase(ctx context.Context, name string) error {
	return p.administer(ctx, fmt.Sprintf(`DROP DATABASE IF EXISTS %s WITH (FORCE)`, quote(name)))
}

// administer runs one statement on a connection of its own to the maintenance database.
func (p *Postgres) administer(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		return fmt.Errorf("devstack: %s: %w", statement, err)
	}
	defer closeConn(ctx, conn)
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("devstack: %s: %w", statement, err)
	}
	return nil
}

func quote(identifier string) string { return pgx.Identifier{identifier}.Sanitize() }

// closeConn says goodbye even when ctx has ended, so that the server does not log a broken connection.
func closeConn(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}
