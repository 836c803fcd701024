// Package migrations holds the SQL files that build the schema morello, in the order of their numbers: one file for
// each capability and change. Files that have been released are never edited.
package migrations

import "embed"

// Files are the migrations. internal/postgres applies them; "morello migrate status" lists them.
//
//go:embed *.sql
var Files embed.FS
