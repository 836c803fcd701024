package audit

// InsertFrom returns the statement that appends an entry for each row of source: a common table expression, or table, with
// the columns tenant, event_type, actor, resource_type, resource_id and details (jsonb). A capability makes it part of the
// statement that changes its data, so that there is an entry exactly if there is a change, at no round trip more.
func InsertFrom(source string) string {
	return `
		INSERT INTO morello.audit_entry (tenant, event_type, actor, resource_type, resource_id, details)
		SELECT tenant, event_type, actor, resource_type, resource_id, details FROM ` + source
}
