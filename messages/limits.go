package messages

import "time"

// Limits of the contract. The message of an error repeats the limit that it is about.
const (
	MaxKeyBytes        = 512
	MaxTags            = 32
	MaxTagBytes        = 128
	MaxBatchKeys       = 1000
	MaxCacheValueBytes = 4 << 20
	// MaxNameBytes bounds ids, names and the like.
	MaxNameBytes = 200
	// MaxDescriptionBytes bounds descriptions; full text search indexes all of them.
	MaxDescriptionBytes = 16 << 10
	MaxQueryBytes       = 1000
	MaxMetadataBytes    = 16 << 10
	// MaxRegistryJSONBytes bounds capabilities, model_config and definition, each.
	MaxRegistryJSONBytes = 1 << 20
	MaxAutonomyLevel     = 5
	MaxAuditDetailsBytes = 64 << 10
	// MaxAuditFilterBytes bounds what audit.query looks for in details.
	MaxAuditFilterBytes = 4 << 10
	MaxUserAgentBytes   = 1024
	// MaxPayload is the max_payload that the NATS server should have. A lower one bounds values and replies before the limits
	// below do.
	MaxPayload = 8 << 20
	// MaxReplyBytes bounds the values of one reply; it leaves room for the rest within MaxPayload.
	MaxReplyBytes = 7 << 20
	// DefaultPage and MaxPage bound the elements of one page of a list; MaxPageBytes its values.
	DefaultPage  = 100
	MaxPage      = 1000
	MaxPageBytes = 1 << 20
	// MaxNesting bounds how deep objects and arrays of a request may lie in each other.
	MaxNesting = 512
	// MaxTTL bounds every time to live: ten years of 365 days.
	MaxTTL = 10 * 365 * 24 * time.Hour
	// DefaultTTL of a cache entry whose request names none.
	DefaultTTL = time.Hour
	// MaxStale is how long ago a value may have expired that a get still accepts.
	MaxStale = 300 * time.Second
	// LeaseTime is how long the right to compute a value lasts, unless it is renewed; MaxLeaseAge is how long it can be renewed.
	LeaseTime           = 10 * time.Second
	MaxLeaseAge         = time.Hour
	MaxSessionDataBytes = 256 << 10
	// MaxSessionsPerUser is the highest max_per_user.
	MaxSessionsPerUser = 10_000
	// The times of a session whose request names none.
	DefaultSessionTTL         = 24 * time.Hour
	DefaultSessionAbsoluteTTL = 30 * 24 * time.Hour
	DefaultSessionExtension   = time.Hour
	// A token lives on for the grace after its successor has been used.
	DefaultRotationGrace = 30 * time.Second
	MaxRotationGrace     = time.Hour
	// DefaultSessionRetentionDays is how long ended sessions are kept.
	DefaultSessionRetentionDays = 30
	MaxSessionRetentionDays     = 3650
	MaxAnalyticsHours           = 366 * 24
	MaxAnalyticsTop             = 100
	// MaxTimeout is the longest deadline that a worker grants; a longer HeaderTimeout counts as this one.
	MaxTimeout = 5 * time.Minute
	// MaxIdempotencyKeyBytes bounds the header Idempotency-Key.
	MaxIdempotencyKeyBytes = 128
	// MaxActorBytes bounds the header Morello-Actor.
	MaxActorBytes = 200
	// IdempotencyWindow is how long a reply is kept for a repeated Idempotency-Key.
	IdempotencyWindow = 24 * time.Hour
)
