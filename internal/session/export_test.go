package session

// The statements whose plans are tested.
var (
	ListSQL        = listSQL
	ActiveCountSQL = activeCountSQL + whose("", "")
	AnalyticsSQL   = analyticsSQL
)

// ActiveCountOf is ActiveCountSQL for a user, an agent or both.
func ActiveCountOf(userID, agentID string) string { return activeCountSQL + whose(userID, agentID) }
