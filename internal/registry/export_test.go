package registry

// The statements of the lists, for tests that look at their plans.
var (
	AgentsSQL    = agentsSQL
	WorkflowsSQL = workflowsSQL
	TaggedSQL    = taggedSQL
)
