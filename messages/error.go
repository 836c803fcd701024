package messages

import (
	"context"
	"errors"
	"fmt"
)

// Code is the machine-readable kind of a failure. Callers decide by it; messages are for people.
type Code string

// The codes. Number gives each its status number.
const (
	CodeInvalid          Code = "invalid"
	CodeUnauthorized     Code = "unauthorized"
	CodeForbidden        Code = "forbidden"
	CodeNotFound         Code = "not_found"
	CodeConflict         Code = "conflict"
	CodeTooLarge         Code = "too_large"
	CodeQuotaExceeded    Code = "quota_exceeded"
	CodeInternal         Code = "internal"
	CodeOverloaded       Code = "overloaded"
	CodeUnavailable      Code = "unavailable"
	CodeDeadlineExceeded Code = "deadline_exceeded"
)

// Codes returns all codes, by number.
func Codes() []Code {
	return []Code{
		CodeInvalid, CodeUnauthorized, CodeForbidden, CodeNotFound, CodeConflict, CodeTooLarge, CodeQuotaExceeded,
		CodeInternal, CodeOverloaded, CodeUnavailable, CodeDeadlineExceeded,
	}
}

// Number returns the status number of the code: the header Nats-Service-Error-Code and the HTTP status alike.
func (c Code) Number() int {
	switch c {
	case CodeInvalid:
		return 400
	case CodeUnauthorized:
		return 401
	case CodeForbidden:
		return 403
	case CodeNotFound:
		return 404
	case CodeConflict:
		return 409
	case CodeTooLarge:
		return 413
	case CodeQuotaExceeded:
		return 429
	case CodeOverloaded, CodeUnavailable:
		return 503
	case CodeDeadlineExceeded:
		return 504
	default:
		return 500
	}
}

// Outcome says, of a request that failed for want of a server, whether its effect took place.
type Outcome string

// The outcomes of an unavailable operation.
const (
	// OutcomeNotApplied: nothing happened; repeating is safe.
	OutcomeNotApplied Outcome = "not_applied"
	// OutcomeUnknown: the connection broke between the sending and the answer; repeat only what is idempotent or keyed.
	OutcomeUnknown Outcome = "unknown"
)

// Error is the one error type of Morello. Anything else that reaches a boundary is answered as internal.
type Error struct {
	Code    Code
	Message string
	Details ErrorDetails
	// Cause is what lies behind it. It is logged, and never sent.
	Cause error
}

// ErrorDetails is what a program may want to know of a failure. Which fields are set depends on the code.
type ErrorDetails struct {
	// Field is the path of the request field at fault, such as entries[3].key, or the name of the header.
	Field string `json:"field,omitzero"`
	// Outcome comes with unavailable.
	Outcome Outcome `json:"outcome,omitzero"`
	// RetryAfterMS is how long to wait before the next attempt, in milliseconds.
	RetryAfterMS int64 `json:"retry_after_ms,omitzero"`
	// Version is the one that is there, of what if_version wanted to be another.
	Version int64 `json:"version,omitzero"`
	// SnapshotID is the agent's head, of what if_head wanted to be another.
	SnapshotID string `json:"snapshot_id,omitzero"`
	// ErrorID is the id under which an internal failure was logged.
	ErrorID string `json:"error_id,omitzero"`
}

// Error returns "<code>: <field>: <message>".
func (e *Error) Error() string {
	if e.Details.Field != "" {
		return fmt.Sprintf("%s: %s: %s", e.Code, e.Details.Field, e.Message)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Retryable reports whether the same request may simply be sent again. A request that is idempotent, or carries an
// idempotency key, may be repeated after more kinds of failure than another.
func (e *Error) Retryable(idempotent bool) bool {
	switch e.Code {
	case CodeOverloaded:
		return true
	case CodeQuotaExceeded:
		return e.Details.RetryAfterMS > 0
	case CodeUnavailable:
		return idempotent || e.Details.Outcome == OutcomeNotApplied
	case CodeDeadlineExceeded:
		return idempotent
	default:
		return false
	}
}

// Invalid returns an error of code invalid about a field of the request; the message names the limit.
func Invalid(field, format string, args ...any) *Error {
	return &Error{Code: CodeInvalid, Message: fmt.Sprintf(format, args...), Details: ErrorDetails{Field: field}}
}

// TooLarge returns an error of code too_large about a field of the request.
func TooLarge(field string, limit int, what string) *Error {
	message := fmt.Sprintf("%s, the limit is %d bytes", what, limit)
	return &Error{Code: CodeTooLarge, Message: message, Details: ErrorDetails{Field: field}}
}

// Unavailable returns an error of code unavailable: a server that is needed did not do its part.
func Unavailable(message string, outcome Outcome, cause error) *Error {
	return &Error{Code: CodeUnavailable, Message: message, Cause: cause, Details: ErrorDetails{Outcome: outcome}}
}

// AsError returns err as an *Error: itself, deadline_exceeded for a context that ended, otherwise internal.
func AsError(err error) *Error {
	var known *Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &Error{Code: CodeDeadlineExceeded, Message: "the time that the caller gave ran out", Cause: err}
	default:
		return &Error{Code: CodeInternal, Message: "internal error", Cause: err}
	}
}

// ErrorReply is the body of a failed request.
type ErrorReply struct {
	Error ErrorBody `json:"error"`
}

// ErrorBody is an Error as it travels.
type ErrorBody struct {
	Code      Code         `json:"code"`
	Message   string       `json:"message"`
	Retryable bool         `json:"retryable"`
	Details   ErrorDetails `json:"details"`
}

// Body returns the error as it travels, for a request that is or is not idempotent.
func (e *Error) Body(idempotent bool) ErrorReply {
	return ErrorReply{Error: ErrorBody{e.Code, e.Message, e.Retryable(idempotent), e.Details}}
}

// DecodeError reads the body of a failed request.
func DecodeError(body []byte) *Error {
	var reply ErrorReply
	if err := DecodeReply(body, &reply); err != nil {
		return &Error{Code: CodeInternal, Message: "the error reply cannot be read", Cause: err}
	}
	return &Error{Code: reply.Error.Code, Message: reply.Error.Message, Details: reply.Error.Details}
}
