// Package audit is the capability audit: a trail of what was done, by whom and to what, that can only be added to.
//
// service.go has the operations, record.go what makes an entry part of another capability's statement, jobs.go the job that
// keeps the partitions and removes what is past its retention. PostgreSQL itself refuses every other change: see
// migrations/0005_audit.sql.
package audit
