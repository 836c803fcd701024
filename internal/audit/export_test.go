package audit

// QuerySQL is the statement of Query, for tests that look at its plans.
var QuerySQL = querySQL
