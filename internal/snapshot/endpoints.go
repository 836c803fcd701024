package snapshot

import (
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)

// Endpoints ties each operation of the capability to what answers it.
func (s *Service) Endpoints() []bus.Binding {
	return []bus.Binding{
		bus.Bind(messages.SnapshotCreateEndpoint, s.Create),
		bus.Bind(messages.SnapshotGetEndpoint, s.Get),
		bus.Bind(messages.SnapshotLatestEndpoint, s.Latest),
		bus.Bind(messages.SnapshotListEndpoint, s.List),
		bus.Bind(messages.SnapshotHistoryEndpoint, s.History),
		bus.Bind(messages.SnapshotDiffEndpoint, s.Diff),
		bus.Bind(messages.SnapshotSearchEndpoint, s.Search),
		bus.Bind(messages.SnapshotStatsEndpoint, s.Stats),
		bus.Bind(messages.SnapshotDeleteEndpoint, s.Delete),
		bus.Bind(messages.SnapshotCleanupEndpoint, s.Cleanup),
		bus.Bind(messages.SnapshotRestoreEndpoint, s.Restore),
		bus.Bind(messages.SnapshotVerifyEndpoint, s.Verify),
	}
}
