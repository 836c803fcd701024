package devtest

import "context"

// What the tests of this package do with fixtures and folders of their own.
var (
	FindTool        = findTool
	RemoveAbandoned = removeAbandoned
)

const FolderPrefix = folderPrefix

// NewDatabaseError makes a database with a fixture of its own, twice, and returns what went wrong.
func NewDatabaseError(migrate func(ctx context.Context, databaseURL string) error) (first, second, closing error) {
	f := fixture{migrate: migrate}
	_, _, first = f.newDatabase()
	_, _, second = f.newDatabase()
	return first, second, f.close()
}
