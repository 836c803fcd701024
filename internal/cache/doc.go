// Package cache is the capability cache: values under keys with a time to live, tags, conditions and counters, in an
// UNLOGGED table of PostgreSQL.
//
// Get, Set and Touch of single keys go through batchers, in batch.go; everything else is one statement in service.go.
package cache
