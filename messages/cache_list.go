package messages

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// CacheKeysEndpoint lists keys.
var CacheKeysEndpoint = Endpoint[CacheKeys, CacheKeysReply]{
	Name: "cache.keys", Timeout: 5 * time.Second,
	Doc: "Lists live keys in byte order, those with a prefix if one is given.",
}

// CacheKeys lists live keys in byte order. A key that lives through the whole listing comes exactly once.
type CacheKeys struct {
	// Prefix of up to 512 bytes; all keys when empty.
	Prefix string `json:"prefix,omitzero" jsonschema:"maxLength=512"`
	Page
}

// Validate reports the first field that is out of range.
func (m CacheKeys) Validate() error {
	if err := checkOptional("prefix", m.Prefix, MaxKeyBytes); err != nil {
		return err
	}
	return m.validate()
}

// CacheKeysReply holds a page of keys.
type CacheKeysReply struct {
	Keys []CacheKey `json:"keys"`
	// NextCursor asks for the next page; absent on the last one.
	NextCursor string `json:"next_cursor,omitzero"`
}

// CacheKey is an entry without its value.
type CacheKey struct {
	Key     string `json:"key"`
	Version int64  `json:"version"`
	// ExpiresAt is absent when the entry does not expire.
	ExpiresAt *time.Time `json:"expires_at,omitzero"`
	// SizeBytes of the value.
	SizeBytes int64 `json:"size_bytes"`
}

// Match says how several tags are meant.
type Match string

// The ways to match tags. Empty means MatchAny.
const (
	MatchAny Match = "any"
	MatchAll Match = "all"
)

func (m Match) validate(field string) error {
	if m != "" && m != MatchAny && m != MatchAll {
		return Invalid(field, "must be %s or %s", MatchAny, MatchAll)
	}
	return nil
}

// CacheGetByTagsEndpoint reads the entries of tags.
var CacheGetByTagsEndpoint = Endpoint[CacheGetByTags, CacheGetByTagsReply]{
	Name: "cache.get_by_tags", Timeout: 5 * time.Second,
	Doc: "Lists the live entries that have any, or all, of some tags.",
}

// CacheGetByTags lists the live entries that have any (or all) of 1 to 32 tags, in byte order of their keys. A page ends
// at its limit or at 1 MiB of values; it may be shorter, and even empty, while there is more.
type CacheGetByTags struct {
	Tags []string `json:"tags" jsonschema:"minItems=1,maxItems=32"`
	// Match is any or all; any when absent.
	Match Match `json:"match,omitzero" jsonschema:"enum=any,enum=all,default=any"`
	// WithValues is true when absent.
	WithValues *bool `json:"with_values,omitzero" jsonschema:"default=true"`
	Page
}

// Validate reports the first field that is out of range.
func (m CacheGetByTags) Validate() error {
	if err := checkSomeTags("tags", m.Tags); err != nil {
		return err
	}
	if err := m.Match.validate("match"); err != nil {
		return err
	}
	return m.validate()
}

// CacheGetByTagsReply holds a page of entries.
type CacheGetByTagsReply struct {
	Entries []CacheTaggedEntry `json:"entries"`
	// NextCursor asks for the next page; absent on the last one.
	NextCursor string `json:"next_cursor,omitzero"`
}

// CacheTaggedEntry is an entry with its key and tags.
type CacheTaggedEntry struct {
	Key string `json:"key"`
	// Value is absent when it was not asked for.
	Value     jsontext.Value `json:"value,omitzero"`
	Version   int64          `json:"version"`
	Tags      []string       `json:"tags"`
	ExpiresAt *time.Time     `json:"expires_at,omitzero"`
	// CreatedAt is when the key began to live; overwriting a live entry keeps it.
	CreatedAt time.Time `json:"created_at"`
}

// CacheClearEndpoint removes many entries.
var CacheClearEndpoint = Endpoint[CacheClear, CacheClearReply]{
	Name: "cache.clear", Timeout: 30 * time.Second, Mutates: true,
	Doc: "Removes the entries of tags, with a prefix, or all of the tenant, in batches.",
}

// CacheClear removes entries, by exactly one of tags, prefix and all. It works in batches until 80 % of the deadline have
// passed; more:true then asks to be called again. Entries that are set meanwhile may stay.
type CacheClear struct {
	// Tags of the entries to remove, 1 to 32.
	Tags []string `json:"tags,omitzero" jsonschema:"minItems=1,maxItems=32"`
	// Match is any or all; any when absent. It belongs to tags.
	Match Match `json:"match,omitzero" jsonschema:"enum=any,enum=all,default=any"`
	// Prefix of the keys to remove, 1 to 512 bytes.
	Prefix string `json:"prefix,omitzero" jsonschema:"maxLength=512"`
	// All removes every entry of the tenant.
	All bool `json:"all,omitzero"`
}

// Validate reports what is missing, contradictory or out of range.
func (m CacheClear) Validate() error {
	given := 0
	for _, is := range []bool{m.Tags != nil, m.Prefix != "", m.All} {
		if is {
			given++
		}
	}
	if given != 1 {
		return Invalid("tags", "exactly one of tags, prefix and all must be given")
	}
	if m.Tags == nil && m.Match != "" {
		return Invalid("match", "belongs to tags")
	}
	if m.Tags != nil {
		if err := checkSomeTags("tags", m.Tags); err != nil {
			return err
		}
	}
	if err := m.Match.validate("match"); err != nil {
		return err
	}
	return checkOptional("prefix", m.Prefix, MaxKeyBytes)
}

// CacheClearReply counts the live entries that were removed.
type CacheClearReply struct {
	Removed int64 `json:"removed"`
	// More says that time ran out before all was removed: call again.
	More bool `json:"more,omitzero"`
}

// CacheInvalidatedEvent tells who keeps copies of entries which of them are no longer true.
var CacheInvalidatedEvent = Event[CacheInvalidated]{
	Name: "cache.invalidated",
	Doc:  "Entries were deleted, cleared or overwritten. Not kept: it reaches who listens at the moment.",
}

// CacheInvalidated names what is no longer true. A copy with a version below that of its key is old; a deleted entry is
// named with the version that it had.
type CacheInvalidated struct {
	Keys   []CacheKeyVersion `json:"keys,omitzero"`
	Tags   []string          `json:"tags,omitzero"`
	Match  Match             `json:"match,omitzero"`
	Prefix string            `json:"prefix,omitzero"`
	All    bool              `json:"all,omitzero"`
}

// CacheKeyVersion is a key and a version of it.
type CacheKeyVersion struct {
	Key     string `json:"key"`
	Version int64  `json:"version"`
}

// checkValue reports a value that is missing or too large. The value as sent counts, white space included.
func checkValue(field string, value jsontext.Value) error {
	if value == nil {
		return Invalid(field, "is missing; null is a value")
	}
	if len(value) > MaxCacheValueBytes {
		return TooLarge(field, MaxCacheValueBytes, fmt.Sprintf("the value has %d bytes", len(value)))
	}
	return nil
}
