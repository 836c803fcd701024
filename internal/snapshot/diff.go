package snapshot

import (
	"bytes"
	"context"
	"strconv"
	"strings"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Bounds of a patch.
const (
	maxChanges     = 10_000
	maxChangeBytes = messages.MaxPageBytes
)

// Diff compares two snapshots: where their trees have the same chunk, nothing under it is read.
func (s *Service) Diff(ctx context.Context, tenant string, m messages.SnapshotDiff) (messages.SnapshotDiffReply, error) {
	if err := bus.Reserve(ctx, 2*maxChangeBytes); err != nil {
		return messages.SnapshotDiffReply{}, err
	}
	reply, err := postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (reply messages.SnapshotDiffReply, err error) {
		from, err := find(ctx, db, tenant, byID(m.FromSnapshotID), "from_snapshot_id")
		if err != nil {
			return reply, err
		}
		to, err := find(ctx, db, tenant, byID(m.ToSnapshotID), "to_snapshot_id")
		if err != nil {
			return reply, err
		}
		d := diff{reader: newReader(db, tenant)}
		if err := d.values(ctx, "", rope{{kind: value, hash: rootOf(from)}}, rope{{kind: value, hash: rootOf(to)}}); err != nil {
			return reply, err
		}
		reply.Changes, err = d.patch(ctx)
		reply.Truncated = d.truncated
		return reply, err
	})
	return reply, s.damageOrDeletion(ctx, tenant, err, named{"from_snapshot_id", m.FromSnapshotID}, named{"to_snapshot_id", m.ToSnapshotID})
}

// diff collects the operations of a JSON Patch.
type diff struct {
	*reader
	changes   []change
	bytes     int64
	truncated bool
}

type change struct {
	op, path string
	value    rope
}

func (d *diff) add(op, path string, value rope) {
	if d.bytes += int64(len(path)) + value.size(); len(d.changes) == maxChanges || d.bytes > maxChangeBytes {
		d.truncated = true
	}
	if !d.truncated {
		d.changes = append(d.changes, change{op, path, value})
	}
}

// patch reads the values of the operations, all at once.
func (d *diff) patch(ctx context.Context) ([]messages.SnapshotChange, error) {
	ropes := make([]rope, len(d.changes))
	for i, c := range d.changes {
		ropes[i] = c.value
	}
	texts, err := d.texts(ctx, ropes)
	if err != nil {
		return nil, err
	}
	patch := make([]messages.SnapshotChange, len(d.changes))
	for i, c := range d.changes {
		patch[i] = messages.SnapshotChange{Op: c.op, Path: c.path}
		if c.op != "remove" {
			patch[i].Value = texts[i]
		}
	}
	return patch, nil
}

// values compares two values.
func (d *diff) values(ctx context.Context, path string, from, to rope) error {
	if d.truncated || from.key() == to.key() {
		return nil
	}
	was, is := from, to
	if err := d.open(ctx, &was, &is); err != nil {
		return err
	}
	a, kind := was.list()
	b, kindNow := is.list()
	switch {
	case kind != kindNow || kind == 0:
		return d.scalars(ctx, path, was, is, to)
	case kind == '[':
		return d.arrays(ctx, path, a, b)
	default:
		return d.objects(ctx, path, a, b)
	}
}

// scalars compares what is not a list on both sides. Equal text may be cut in two ways.
func (d *diff) scalars(ctx context.Context, path string, was, is, to rope) error {
	if was.size() == is.size() && was.size() <= maxChangeBytes {
		texts, err := d.texts(ctx, []rope{was, is})
		if err != nil || bytes.Equal(texts[0], texts[1]) {
			return err
		}
	}
	d.add("replace", path, to)
	return nil
}

// gap is a stretch of two lists between items that they have in common. Its place is counted in the first list.
type gap struct {
	from, to []rope
	at       int
}

// arrays aligns two arrays, run by run and then element by element, and compares what lies between. It works from the end to the
// beginning, so that no operation moves the place of a later one.
func (d *diff) arrays(ctx context.Context, path string, from, to []rope) error {
	gaps := align(gap{from, to, 0})
	for anyRun(gaps) {
		var err error
		if gaps, err = d.expandGaps(ctx, gaps); err != nil {
			return err
		}
	}
	if err := d.prefetch(ctx, gaps); err != nil {
		return err
	}
	for i := len(gaps) - 1; i >= 0 && !d.truncated; i-- {
		if err := d.elements(ctx, path, gaps[i]); err != nil {
			return err
		}
	}
	return nil
}

// elements compares elements pair by pair, and removes or adds the rest.
func (d *diff) elements(ctx context.Context, path string, g gap) error {
	pairs := min(len(g.from), len(g.to))
	for i := len(g.from) - 1; i >= pairs; i-- {
		d.add("remove", path+"/"+strconv.Itoa(g.at+i), nil)
	}
	for i := pairs; i < len(g.to); i++ {
		d.add("add", path+"/"+strconv.Itoa(g.at+i), g.to[i])
	}
	for i := pairs - 1; i >= 0; i-- {
		if err := d.values(ctx, path+"/"+strconv.Itoa(g.at+i), g.from[i], g.to[i]); err != nil {
			return err
		}
	}
	return nil
}

// expandGaps opens the largest runs in the gaps by one level, and aligns them again.
func (d *diff) expandGaps(ctx context.Context, gaps []gap) (finer []gap, err error) {
	var hashes []Hash
	wanted := make([]func(rope) bool, len(gaps))
	for i, g := range gaps {
		wanted[i] = largestRuns(g.from, g.to, nil)
		hashes = runHashes(runHashes(hashes, g.from, wanted[i]), g.to, wanted[i])
	}
	if err := d.load(ctx, hashes); err != nil {
		return nil, err
	}
	for i, g := range gaps {
		if g.from, err = d.expand(ctx, g.from, wanted[i]); err != nil {
			return nil, err
		}
		if g.to, err = d.expand(ctx, g.to, wanted[i]); err != nil {
			return nil, err
		}
		finer = append(finer, align(g)...)
	}
	return finer, nil
}

// largestRuns chooses, but for the shared ones, the largest of the runs, and those of more than half of its items: the run of one list
// may consist of runs that stand in the other.
func largestRuns(from, to []rope, shared map[Hash]bool) (wanted func(rope) bool) {
	largest := 0
	for _, items := range [][]rope{from, to} {
		for _, item := range items {
			if item.isRun() && !shared[item[0].hash] {
				largest = max(largest, item.items())
			}
		}
	}
	return func(run rope) bool { return !shared[run[0].hash] && 2*run.items() > largest }
}

func runHashes(hashes []Hash, items []rope, wanted func(rope) bool) []Hash {
	for _, item := range items {
		if item.isRun() && wanted(item) {
			hashes = item.refs(hashes)
		}
	}
	return hashes
}

func hasRun(items []rope) bool { return len(runHashes(nil, items, everyRun)) > 0 }

func anyRun(gaps []gap) bool {
	for _, g := range gaps {
		if hasRun(g.from) || hasRun(g.to) {
			return true
		}
	}
	return false
}

// prefetch reads at once what the comparisons of pairs will open.
func (d *diff) prefetch(ctx context.Context, gaps []gap) error {
	var hashes []Hash
	for _, g := range gaps {
		for i := range min(len(g.from), len(g.to)) {
			hashes = valueHashes(valueHashes(hashes, g.from[i]), g.to[i])
		}
	}
	return d.load(ctx, hashes)
}

func valueHashes(hashes []Hash, v rope) []Hash {
	if v.isValueRef() {
		hashes = append(hashes, v[0].hash)
	}
	return hashes
}

// align finds items that both lists have, and returns the gaps between them: at first the same beginning and the same end, and in
// between items that occur once in each, as far as they are in the same order. It is the anchoring of patience diff
// (https://bramcohen.livejournal.com/73318.html), greedy where that takes the longest chain.
func align(g gap) (gaps []gap) {
	for len(g.from) > 0 && len(g.to) > 0 && g.from[0].key() == g.to[0].key() {
		g.at += g.from[0].items()
		g.from, g.to = g.from[1:], g.to[1:]
	}
	for len(g.from) > 0 && len(g.to) > 0 && g.from[len(g.from)-1].key() == g.to[len(g.to)-1].key() {
		g.from, g.to = g.from[:len(g.from)-1], g.to[:len(g.to)-1]
	}
	if len(g.from) == 0 && len(g.to) == 0 {
		return nil
	}
	places := onlyPlaces(g.to)
	once := onlyPlaces(g.from)
	start, at, taken := 0, g.at, 0
	for i, item := range g.from {
		place, common := places[item.key()]
		if common && place >= taken && place >= 0 && once[item.key()] == i {
			if i > start || place > taken {
				gaps = append(gaps, gap{g.from[start:i], g.to[taken:place], at})
			}
			at += count(g.from[start : i+1])
			start, taken = i+1, place+1
		}
	}
	if start < len(g.from) || taken < len(g.to) {
		gaps = append(gaps, gap{g.from[start:], g.to[taken:], at})
	}
	return gaps
}

// onlyPlaces returns where the items are that occur once; -1 for others.
func onlyPlaces(items []rope) map[string]int {
	places := make(map[string]int, len(items))
	for i, item := range items {
		key := item.key()
		if _, again := places[key]; again {
			i = -1
		}
		places[key] = i
	}
	return places
}

func count(items []rope) (n int) {
	for _, item := range items {
		n += item.items()
	}
	return n
}

// objects compares the members of two objects by their names. Runs that both have are not opened.
func (d *diff) objects(ctx context.Context, path string, from, to []rope) error {
	for {
		shared := sharedRuns(from, to)
		if len(runHashes(nil, from, everyRun))+len(runHashes(nil, to, everyRun)) == 2*len(shared) {
			break
		}
		wanted := largestRuns(from, to, shared)
		var err error
		if from, err = d.expand(ctx, from, wanted); err != nil {
			return err
		}
		if to, err = d.expand(ctx, to, wanted); err != nil {
			return err
		}
	}
	was, _ := byName(from)
	is, names := byName(to)
	var pairs gap
	for _, item := range from {
		if item.isRun() {
			continue
		}
		name, v := item.member()
		if now, there := is[name]; there {
			pairs.from, pairs.to = append(pairs.from, v), append(pairs.to, now)
		} else {
			d.add("remove", path+"/"+escapePointer(name), nil)
		}
	}
	if err := d.prefetch(ctx, []gap{pairs}); err != nil {
		return err
	}
	for _, name := range names {
		member := path + "/" + escapePointer(name)
		before, there := was[name]
		if !there {
			d.add("add", member, is[name])
			continue
		}
		if err := d.values(ctx, member, before, is[name]); err != nil {
			return err
		}
	}
	return nil
}

// sharedRuns are the runs that both lists have.
func sharedRuns(from, to []rope) map[Hash]bool {
	shared := map[Hash]bool{}
	has := map[Hash]bool{}
	for _, hash := range runHashes(nil, from, everyRun) {
		has[hash] = true
	}
	for _, hash := range runHashes(nil, to, everyRun) {
		if has[hash] {
			shared[hash] = true
		}
	}
	return shared
}

func byName(items []rope) (values map[string]rope, names []string) {
	values = map[string]rope{}
	for _, item := range items {
		if item.isRun() {
			continue
		}
		name, v := item.member()
		values[name] = v
		names = append(names, name)
	}
	return values, names
}

func escapePointer(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
