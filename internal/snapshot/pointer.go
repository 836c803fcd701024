package snapshot

import (
	"context"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// getPath reads the value that a JSON Pointer names: the chunks on the way to it, and those of the value.
func (s *Service) getPath(ctx context.Context, tenant string, m messages.SnapshotGet) (messages.SnapshotDataReply, error) {
	if err := bus.Reserve(ctx, smallDocument); err != nil {
		return messages.SnapshotDataReply{}, err
	}
	var part rope
	found, err := postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (messages.Snapshot, error) {
		found, err := find(ctx, db, tenant, byID(m.SnapshotID), "snapshot_id")
		if err != nil {
			return found, err
		}
		part, err = newReader(db, tenant).follow(ctx, rootOf(found), jsontext.Pointer(m.Path))
		return found, err
	})
	if err != nil {
		return messages.SnapshotDataReply{}, s.damageOrDeletion(ctx, tenant, err, named{"snapshot_id", m.SnapshotID})
	}
	release, err := s.holdLarge(ctx, part.size())
	if err != nil {
		return messages.SnapshotDataReply{}, err
	}
	defer release()
	data, err := postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) ([]jsontext.Value, error) {
		return newReader(db, tenant).texts(ctx, []rope{part})
	})
	if err != nil {
		return messages.SnapshotDataReply{}, s.damageOrDeletion(ctx, tenant, err, named{"snapshot_id", m.SnapshotID})
	}
	return s.answer(ctx, tenant, found, data[0])
}

// follow walks from the root to what the pointer names.
func (r *reader) follow(ctx context.Context, root Hash, pointer jsontext.Pointer) (rope, error) {
	at := rope{{kind: value, hash: root}}
	for token := range pointer.Tokens() {
		if err := r.open(ctx, &at); err != nil {
			return nil, err
		}
		items, kind := at.list()
		var found bool
		var err error
		switch kind {
		case '[':
			at, found, err = r.element(ctx, items, token)
		case '{':
			at, found, err = r.member(ctx, items, token)
		}
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, &messages.Error{
				Code: messages.CodeNotFound, Message: "leads to nothing in the data", Details: messages.ErrorDetails{Field: "path"},
			}
		}
	}
	return at, nil
}

// element finds an element by its index, opening only the runs that hold it.
func (r *reader) element(ctx context.Context, items []rope, token string) (rope, bool, error) {
	index, err := strconv.Atoi(token)
	if err != nil || strconv.Itoa(index) != token || index < 0 {
		return nil, false, nil
	}
	for {
		at := 0
		for at < len(items) && index >= items[at].items() {
			index -= items[at].items()
			at++
		}
		if at == len(items) {
			return nil, false, nil
		}
		if !items[at].isRun() {
			return items[at], true, nil
		}
		if items, err = r.expand(ctx, items[at:at+1], everyRun); err != nil {
			return nil, false, err
		}
	}
}

// member finds a member by its name. The names are in the runs: where there are some, all are read, level by level.
func (r *reader) member(ctx context.Context, items []rope, token string) (rope, bool, error) {
	for {
		runs := false
		for _, item := range items {
			if item.isRun() {
				runs = true
			} else if name, value := item.member(); name == token {
				return value, true, nil
			}
		}
		if !runs {
			return nil, false, nil
		}
		var err error
		if items, err = r.expand(ctx, items, everyRun); err != nil {
			return nil, false, err
		}
	}
}

func everyRun(rope) bool { return true }
