// Package registry is the capabilities agent and workflow: what agents and workflows there are, and how they are set up.
//
// agent.go and workflow.go have the operations, list.go the lists of both, jobs.go the job that removes what a deleted
// agent owned. Each change is one statement with its entry in the audit trail, so that one is there exactly if the other
// is; its event goes out when both are durable.
package registry
