package messages

// Page asks for a part of a list. Lists are keyset-paged: a page begins after the last element of the one before, so that
// elements which come and go meanwhile move nothing.
type Page struct {
	// Limit of elements, 1 to 1000; 100 when absent.
	Limit *int `json:"limit,omitzero" jsonschema:"minimum=1,maximum=1000,default=100"`
	// Cursor is the next_cursor of the page before. It is valid for the same tenant, operation and filters only.
	Cursor string `json:"cursor,omitzero"`
}

// Size returns the limit, or its default.
func (p Page) Size() int {
	if p.Limit == nil {
		return DefaultPage
	}
	return *p.Limit
}

// maxCursorBytes is more than any cursor of ours has.
const maxCursorBytes = 4096

func (p Page) validate() error {
	if p.Limit != nil && (*p.Limit < 1 || *p.Limit > MaxPage) {
		return Invalid("limit", "must be 1 to %d", MaxPage)
	}
	if len(p.Cursor) > maxCursorBytes {
		return Invalid("cursor", "is not a cursor of this list")
	}
	return nil
}
