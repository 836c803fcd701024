// Package cache is the capability cache: values under keys with a time to live, tags, conditions and counters, in an
// UNLOGGED table of PostgreSQL.
//
// Get, Set and Touch of single keys go through batchers, in batch.go; the rest is one statement each: service.go, set.go,
// delete.go, increment.go, list.go, clear.go, info.go. lease.go gives one of many who miss the right to compute. The job in
// jobs.go keeps the tables in shape, with evict.go and tagwalk.go.
package cache
