package messages

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// CacheGetEndpoint reads one entry.
var CacheGetEndpoint = Endpoint[CacheGet, CacheGetReply]{
	Name: "cache.get", Timeout: 2 * time.Second, Batched: true,
	Doc: "Returns the live entry of a key, or found:false.",
}

// CacheGet asks for the live entry of a key. It writes nothing, unless it misses and asks for a lease.
type CacheGet struct {
	// Key of 1 to 512 bytes, compared byte by byte.
	Key string `json:"key" jsonschema:"minLength=1,maxLength=512"`
	// Lease asks, on a miss, for the right to compute the value. Of all who ask one gets a lease token, for 10 seconds
	// or until it sets the value; cache.touch renews it. The others get lease_wait_ms. (Nishtala et al., Scaling Memcache at Facebook, 2013.)
	Lease bool `json:"lease,omitzero"`
	// StaleSeconds accepts, on a miss, a value that expired less than so long ago; up to 300, 0 when absent.
	StaleSeconds float64 `json:"stale_seconds,omitzero" jsonschema:"minimum=0,maximum=300,default=0"`
}

// Validate reports the first field that is out of range.
func (m CacheGet) Validate() error {
	if !(m.StaleSeconds >= 0) || m.StaleSeconds > MaxStale.Seconds() {
		return Invalid("stale_seconds", "must be 0 to %.0f", MaxStale.Seconds())
	}
	return checkKey("key", m.Key)
}

func (m CacheGet) goesAlone() bool { return m.Lease } // the token would be lost if the value were too large to come with others

// CacheGetReply holds the entry. A miss, an expired entry included, is found:false; unless a stale value was accepted,
// which is found:true and stale:true.
type CacheGetReply struct {
	Found bool `json:"found"`
	CacheEntry
	// Stale says that the value has expired.
	Stale bool `json:"stale,omitzero"`
	// Lease is the token that cache.set takes: its holder computes the value.
	Lease string `json:"lease,omitzero"`
	// LeaseWaitMS is given while another holds the lease: ask again after about so many milliseconds.
	LeaseWaitMS int64 `json:"lease_wait_ms,omitzero"`
}

// CacheEntry is a live entry as it is read.
type CacheEntry struct {
	// Value holds the tokens as they were set, without white space between them.
	Value jsontext.Value `json:"value,omitzero"`
	// Version grows with every change of the key, across deletion and re-creation too.
	Version int64 `json:"version,omitzero"`
	// ExpiresAt is absent when the entry does not expire.
	ExpiresAt *time.Time `json:"expires_at,omitzero"`
	// ExpiresInSeconds is what was left at the moment of reading, by the database's clock.
	ExpiresInSeconds *float64 `json:"expires_in_seconds,omitzero"`
}

// CacheSetEndpoint writes one entry.
var CacheSetEndpoint = Endpoint[CacheSet, CacheSetReply]{
	Name: "cache.set", Timeout: 2 * time.Second, Mutates: true, Batched: true,
	Doc: "Stores a value under a key, replacing value, TTL and tags; on a condition if one is given.",
}

// CacheSet stores a value. It replaces value, time to live and tags of a live entry. With a condition (if_absent or
// if_version) that does not hold nothing is changed.
type CacheSet struct {
	// Key of 1 to 512 bytes.
	Key string `json:"key" jsonschema:"minLength=1,maxLength=512"`
	// Value is any JSON value of up to 4 MiB, null included.
	Value jsontext.Value `json:"value"`
	// TTLSeconds is more than 0 and at most ten years; 3600 when absent.
	TTLSeconds *float64 `json:"ttl_seconds,omitzero" jsonschema:"exclusiveMinimum=0,maximum=315360000,default=3600"`
	// NoExpiry keeps the entry until it is deleted or evicted. It excludes ttl_seconds.
	NoExpiry bool `json:"no_expiry,omitzero"`
	// KeepTTL has a live entry keep its time to live; ttl_seconds and no_expiry are then for a key that has none.
	KeepTTL bool `json:"keep_ttl,omitzero"`
	// Tags are up to 32 names of 1 to 128 bytes; repeated ones count once.
	Tags []string `json:"tags,omitzero" jsonschema:"maxItems=32"`
	// IfAbsent stores only when no live entry has the key. It excludes if_version.
	IfAbsent bool `json:"if_absent,omitzero"`
	// IfVersion stores only when the live entry has this version; 0 means that there must be none.
	IfVersion *int64 `json:"if_version,omitzero" jsonschema:"minimum=0"`
	// Lease is the token that cache.get gave: the value is stored only while the lease holds, and ends it. A lease ends
	// after 10 seconds, with any delete, clear or other set of the key, and with a clear of one of the tags that are given
	// here or that the key had before. So a value that was computed before an invalidation is never stored after it. It
	// excludes if_absent and if_version.
	Lease string `json:"lease,omitzero" jsonschema:"format=uuid"`
}

// Validate reports the first field that is out of range, or contradicts another.
func (m CacheSet) Validate() error {
	if err := checkKey("key", m.Key); err != nil {
		return err
	}
	if err := checkValue("value", m.Value); err != nil {
		return err
	}
	if err := checkExpiry("", m.TTLSeconds, m.NoExpiry); err != nil {
		return err
	}
	switch {
	case m.IfAbsent && m.IfVersion != nil:
		return Invalid("if_absent", "excludes if_version")
	case m.IfVersion != nil && *m.IfVersion < 0:
		return Invalid("if_version", "must be 0 or more")
	case m.Lease != "" && (m.IfAbsent || m.IfVersion != nil):
		return Invalid("lease", "excludes if_absent and if_version")
	}
	if err := checkUUID("lease", m.Lease); err != nil {
		return err
	}
	return checkTags("tags", m.Tags)
}

func (m CacheSet) goesAlone() bool { return m.Conditional() } // it waits for whoever holds its entry

// Conditional reports whether the set depends on what is there.
func (m CacheSet) Conditional() bool { return m.IfAbsent || m.IfVersion != nil || m.Lease != "" }

// CacheSetReply says whether the value was stored. When a condition failed, stored is false and version is that of the
// live entry, 0 when there is none.
type CacheSetReply struct {
	Stored    bool       `json:"stored"`
	Version   int64      `json:"version"`
	ExpiresAt *time.Time `json:"expires_at,omitzero"`
}

// CacheGetManyEndpoint reads many entries.
var CacheGetManyEndpoint = Endpoint[CacheGetMany, CacheGetManyReply]{
	Name: "cache.get_many", Timeout: 5 * time.Second,
	Doc: "Returns the live entries of up to 1000 keys; null for each that is not there.",
}

// CacheGetMany asks for the entries of 1 to 1000 keys. Values of more than 7 MiB together are too_large.
type CacheGetMany struct {
	Keys []string `json:"keys" jsonschema:"minItems=1,maxItems=1000"`
}

// Validate reports the first field that is out of range.
func (m CacheGetMany) Validate() error { return checkKeys("keys", m.Keys) }

// CacheGetManyReply holds an entry, or null, for every key that was asked for.
type CacheGetManyReply struct {
	Entries map[string]*CacheEntry `json:"entries"`
}

// CacheSetManyEndpoint writes many entries.
var CacheSetManyEndpoint = Endpoint[CacheSetMany, CacheSetManyReply]{
	Name: "cache.set_many", Timeout: 5 * time.Second, Mutates: true,
	Doc: "Stores up to 1000 entries, all or none.",
}

// CacheSetMany stores 1 to 1000 entries in one statement: all or none. Of a key that is repeated the last entry wins.
type CacheSetMany struct {
	Entries []CacheSetEntry `json:"entries" jsonschema:"minItems=1,maxItems=1000"`
	// TTLSeconds is for entries without their own; 3600 when absent.
	TTLSeconds *float64 `json:"ttl_seconds,omitzero" jsonschema:"exclusiveMinimum=0,maximum=315360000,default=3600"`
	// NoExpiry keeps entries without a TTL of their own until they are deleted or evicted. It excludes ttl_seconds.
	NoExpiry bool `json:"no_expiry,omitzero"`
	// Tags are for entries without their own.
	Tags []string `json:"tags,omitzero" jsonschema:"maxItems=32"`
}

// CacheSetEntry is one entry of a CacheSetMany. What it names wins over what is named for all.
type CacheSetEntry struct {
	Key        string         `json:"key" jsonschema:"minLength=1,maxLength=512"`
	Value      jsontext.Value `json:"value"`
	TTLSeconds *float64       `json:"ttl_seconds,omitzero" jsonschema:"exclusiveMinimum=0,maximum=315360000"`
	NoExpiry   bool           `json:"no_expiry,omitzero"`
	Tags       []string       `json:"tags,omitzero" jsonschema:"maxItems=32"`
}

// Validate reports the first field that is out of range.
func (m CacheSetMany) Validate() error {
	if err := checkCount("entries", len(m.Entries), MaxBatchKeys); err != nil {
		return err
	}
	if err := checkExpiry("", m.TTLSeconds, m.NoExpiry); err != nil {
		return err
	}
	if err := checkTags("tags", m.Tags); err != nil {
		return err
	}
	for i, entry := range m.Entries {
		if err := entry.validate(fmt.Sprintf("entries[%d]", i)); err != nil {
			return err
		}
	}
	return nil
}

func (m CacheSetEntry) validate(path string) error {
	if err := checkKey(path+".key", m.Key); err != nil {
		return err
	}
	if err := checkValue(path+".value", m.Value); err != nil {
		return err
	}
	if err := checkExpiry(path+".", m.TTLSeconds, m.NoExpiry); err != nil {
		return err
	}
	return checkTags(path+".tags", m.Tags)
}

// checkExpiry checks the fields ttl_seconds and no_expiry behind a path.
func checkExpiry(path string, ttlSeconds *float64, noExpiry bool) error {
	if noExpiry && ttlSeconds != nil {
		return Invalid(path+"no_expiry", "excludes ttl_seconds")
	}
	return checkTTL(path+"ttl_seconds", ttlSeconds)
}

// CacheSetManyReply counts the distinct keys that were stored.
type CacheSetManyReply struct {
	Stored int `json:"stored"`
}

// CacheDeleteEndpoint deletes one entry.
var CacheDeleteEndpoint = Endpoint[CacheDelete, CacheDeleteReply]{
	Name: "cache.delete", Timeout: 2 * time.Second, Mutates: true,
	Doc: "Deletes the entry of a key, at a given version if one is named.",
}

// CacheDelete deletes an entry.
type CacheDelete struct {
	// Key of 1 to 512 bytes.
	Key string `json:"key" jsonschema:"minLength=1,maxLength=512"`
	// IfVersion deletes only the entry of this version. The lease of the key ends in any case: 1, which no entry has, ends
	// it and deletes nothing.
	IfVersion *int64 `json:"if_version,omitzero" jsonschema:"minimum=1"`
}

// Validate reports the first field that is out of range.
func (m CacheDelete) Validate() error {
	if m.IfVersion != nil && *m.IfVersion < 1 {
		return Invalid("if_version", "must be 1 or more: what is not there cannot be deleted")
	}
	return checkKey("key", m.Key)
}

// CacheDeleteReply says whether a live entry was deleted. Deleting what is not there is deleted:false, no error.
type CacheDeleteReply struct {
	Deleted bool `json:"deleted"`
}

// CacheDeleteManyEndpoint deletes many entries.
var CacheDeleteManyEndpoint = Endpoint[CacheDeleteMany, CacheDeleteManyReply]{
	Name: "cache.delete_many", Timeout: 5 * time.Second, Mutates: true,
	Doc: "Deletes the entries of up to 1000 keys.",
}

// CacheDeleteMany deletes the entries of 1 to 1000 keys, all at once.
type CacheDeleteMany struct {
	Keys []string `json:"keys" jsonschema:"minItems=1,maxItems=1000"`
}

// Validate reports the first field that is out of range.
func (m CacheDeleteMany) Validate() error { return checkKeys("keys", m.Keys) }

// CacheDeleteManyReply counts the live entries that were deleted.
type CacheDeleteManyReply struct {
	Deleted int `json:"deleted"`
}

// CacheTouchEndpoint renews the time to live of an entry.
var CacheTouchEndpoint = Endpoint[CacheTouch, CacheTouchReply]{
	Name: "cache.touch", Timeout: 2 * time.Second, Mutates: true, Batched: true,
	Doc: "Renews the time to live of a live entry, by its own original TTL or a given one.",
}

// CacheTouch renews a live entry: it expires a TTL from now. Without ttl_seconds that is the TTL with which the entry
// was set, however often it is touched. An expired entry is never revived.
type CacheTouch struct {
	// Key of 1 to 512 bytes.
	Key string `json:"key" jsonschema:"minLength=1,maxLength=512"`
	// TTLSeconds replaces the TTL for this renewal, and is not remembered.
	TTLSeconds *float64 `json:"ttl_seconds,omitzero" jsonschema:"exclusiveMinimum=0,maximum=315360000"`
	// Lease is the token that cache.get gave: the lease is renewed in place of an entry, for 10 seconds from now and up to an
	// hour in all. It excludes ttl_seconds.
	Lease string `json:"lease,omitzero" jsonschema:"format=uuid"`
}

// Validate reports the first field that is out of range.
func (m CacheTouch) Validate() error {
	if err := checkKey("key", m.Key); err != nil {
		return err
	}
	if err := checkTTL("ttl_seconds", m.TTLSeconds); err != nil {
		return err
	}
	if m.Lease != "" && m.TTLSeconds != nil {
		return Invalid("lease", "excludes ttl_seconds")
	}
	return checkUUID("lease", m.Lease)
}

func (m CacheTouch) goesAlone() bool { return m.Lease != "" } // a lease is no entry

// CacheTouchReply says whether a live entry, or a lease that holds, was renewed, and until when it lives; no time when it does not
// expire.
type CacheTouchReply struct {
	Touched   bool       `json:"touched"`
	ExpiresAt *time.Time `json:"expires_at,omitzero"`
}

// CacheIncrementEndpoint adds to a counter.
var CacheIncrementEndpoint = Endpoint[CacheIncrement, CacheIncrementReply]{
	Name: "cache.increment", Timeout: 2 * time.Second, Mutates: true,
	Doc: "Adds to the whole number under a key, atomically.",
}

// CacheIncrement adds delta to the entry. A missing or expired one becomes initial + delta, with the given time to live and tags. A
// live one keeps its expiry, so that a window of fixed length is counted by one call, and its tags; renew restarts its time to
// live. A value that is no whole number, and a sum beyond 64 bits, are conflict.
type CacheIncrement struct {
	// Key of 1 to 512 bytes.
	Key string `json:"key" jsonschema:"minLength=1,maxLength=512"`
	// Delta may be negative; 1 when absent.
	Delta *int64 `json:"delta,omitzero" jsonschema:"default=1"`
	// Initial is what a missing entry counts as; 0 when absent.
	Initial int64 `json:"initial,omitzero" jsonschema:"default=0"`
	// TTLSeconds holds from when the counter is created, and from now if it is renewed; 3600 when absent.
	TTLSeconds *float64 `json:"ttl_seconds,omitzero" jsonschema:"exclusiveMinimum=0,maximum=315360000,default=3600"`
	// NoExpiry is in place of ttl_seconds, which it excludes: the counter stays until it is deleted or evicted.
	NoExpiry bool `json:"no_expiry,omitzero"`
	// Renew has a live counter expire ttl_seconds from now, or never with no_expiry.
	Renew bool `json:"renew,omitzero"`
	// Tags of a counter that is created, up to 32 names of 1 to 128 bytes.
	Tags []string `json:"tags,omitzero" jsonschema:"maxItems=32"`
}

// Validate reports the first field that is out of range.
func (m CacheIncrement) Validate() error {
	if err := checkKey("key", m.Key); err != nil {
		return err
	}
	if err := checkExpiry("", m.TTLSeconds, m.NoExpiry); err != nil {
		return err
	}
	return checkTags("tags", m.Tags)
}

// CacheIncrementReply holds the sum.
type CacheIncrementReply struct {
	Value   int64 `json:"value"`
	Version int64 `json:"version"`
}
