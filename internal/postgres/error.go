package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ai-cherry/morello/messages"
)

// notSentError marks a failure that came before anything was sent to PostgreSQL.
type notSentError struct{ error }

func (e notSentError) Unwrap() error { return e.error }

func notSent(err error) error { return notSentError{err} }

// mapError turns an error of pgx into one of the contract; errors of the contract stay as they are. readOnly says that
// there was nothing to apply.
func mapError(ctx context.Context, err error, readOnly bool) error {
	var known *messages.Error
	var server *pgconn.PgError
	var early notSentError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case ctx.Err() != nil:
		return &messages.Error{Code: messages.CodeDeadlineExceeded, Message: "the time that the caller gave ran out", Cause: err}
	case errors.As(err, &early), sentNothing(err):
		return messages.Unavailable("PostgreSQL cannot be reached", messages.OutcomeNotApplied, err)
	case errors.As(err, &server) && server.Severity != "FATAL":
		return serverError(server)
	case server != nil, isConnectionError(err), isClosed(err):
		outcome := messages.OutcomeUnknown // a session that dies in COMMIT may have committed
		if readOnly {
			outcome = messages.OutcomeNotApplied
		}
		return messages.Unavailable("the connection to PostgreSQL broke", outcome, err)
	default:
		return err
	}
}

// sentNothing reports whether pgx failed before it sent anything. It says the same of a connection that it finds closed,
// but that is also how pgx 5.12 reports one that broke while it waited for the answer: pgconn's MultiResultReader peeks,
// drops the error, and then finds the connection closed.
func sentNothing(err error) bool { return pgconn.SafeToRetry(err) && !isClosed(err) }

func isClosed(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if err.Error() == "conn closed" {
			return true
		}
	}
	return false
}

// isConnectionError reports whether the connection failed, as opposed to our use of it.
func isConnectionError(err error) bool {
	var network net.Error
	return errors.As(err, &network) || pgconn.Timeout(err) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}

// serverError maps what PostgreSQL itself answered. Its statement or transaction has been rolled back, so that nothing
// was applied. The codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
func serverError(err *pgconn.PgError) error {
	switch err.Code {
	case "23505": // unique_violation
		return &messages.Error{Code: messages.CodeConflict, Message: "it exists already", Cause: err}
	case "22021", "22P05": // character_not_in_repertoire, untranslatable_character
		return &messages.Error{Code: messages.CodeInvalid, Message: "the text holds a character that cannot be stored", Cause: err}
	case "57014": // query_canceled: our statement_timeout, as the caller's own cancellation ends its context
		return &messages.Error{Code: messages.CodeDeadlineExceeded, Message: "the statement took too long", Cause: err}
	case "40001", "40P01", "55P03": // serialization_failure, deadlock_detected, lock_not_available
		return messages.Unavailable("the transaction lost against another one", messages.OutcomeNotApplied, err)
	case "25P03": // idle_in_transaction_session_timeout
		return messages.Unavailable("the transaction stood still for too long", messages.OutcomeNotApplied, err)
	case "25006": // read_only_sql_transaction: a standby, in the middle of a failover
		return messages.Unavailable("PostgreSQL accepts no writes", messages.OutcomeNotApplied, err)
	}
	switch err.Code[:2] {
	case "53", "57", "58": // resources, operator intervention, system
		return messages.Unavailable("PostgreSQL is not available", messages.OutcomeNotApplied, err)
	}
	return serverFault{err}
}

// serverFault is an error of PostgreSQL that is a fault of ours. Its text leaves out PostgreSQL's own, which quotes the
// data at fault.
type serverFault struct{ err *pgconn.PgError }

func (e serverFault) Error() string {
	return fmt.Sprintf("PostgreSQL refused a statement: SQLSTATE %s, table %q, column %q, constraint %q, in %s",
		e.err.Code, e.err.TableName, e.err.ColumnName, e.err.ConstraintName, e.err.Routine)
}

func (e serverFault) Unwrap() error { return e.err }

// SQLState returns the code that PostgreSQL answered a statement with; empty when err is something else.
func SQLState(err error) string {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return server.Code
	}
	return ""
}

// ViolatedConstraint returns the name of the constraint, or unique index, that a statement violated; empty when err is
// something else.
func ViolatedConstraint(err error) string {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return server.ConstraintName
	}
	return ""
}

// NotApplied reports whether err is unavailable with the certainty that nothing was changed.
func NotApplied(err error) bool {
	var known *messages.Error
	return errors.As(err, &known) && known.Code == messages.CodeUnavailable && known.Details.Outcome == messages.OutcomeNotApplied
}
