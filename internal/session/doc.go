// Package session is the capability session: who is at work, opened by a secret token, with data that is merged in the
// database, and an end that is final.
//
// GetByToken, Touch and Update go through batchers, in lookup.go, touch.go and batchupdate.go; the rest is one statement, or one
// batch of statements, each: create.go, update.go, rotate.go, delete.go, list.go, analytics.go. cleanup.go marks what has expired and removes what
// ended long ago; jobs.go does so for all tenants. docs/adr/0010-sessions.md has the reasons.
package session
