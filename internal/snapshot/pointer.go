package snapshot

import (
	"context"

	"github.com/ai-cherry/morello/messages"
)

func (s *Service) getPath(ctx context.Context, tenant string, m messages.SnapshotGet) (messages.SnapshotDataReply, error) {
	panic("later")
}
