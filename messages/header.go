package messages

// Header names of requests and replies. NATS compares header names exactly, case included.
const (
	// HeaderTimeout carries what is left of the caller's deadline, in whole milliseconds.
	HeaderTimeout = "Morello-Timeout-Ms"
	// HeaderIdempotencyKey makes the repetition of a mutating request safe for IdempotencyWindow.
	HeaderIdempotencyKey = "Idempotency-Key"
	// HeaderBatch says how many requests the message carries; see MaxBatchRequests.
	HeaderBatch = "Morello-Batch"
	// HeaderActor says on whose behalf the caller acts, for the audit trail.
	HeaderActor = "Morello-Actor"
	// HeaderTraceparent is the W3C trace context of the caller.
	HeaderTraceparent = "traceparent"
	// HeaderErrorCode and HeaderError mark a failed request, as the NATS service API (ADR-32) names them.
	HeaderErrorCode = "Nats-Service-Error-Code"
	HeaderError     = "Nats-Service-Error"
)
