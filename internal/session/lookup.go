package session

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// maxBatched is the size of data and metadata over which they are read by themselves, so that a batch of many callers stays
// small.
const maxBatched = 64 << 10

// lookup is what GetByToken asks for.
type lookup struct {
	tokenKey
	touch bool
}

// tokenKey is the hash of a token with its tenant.
type tokenKey struct {
	tenant string
	hash   [sha256.Size]byte
}

// opened is the session that a token opens; without data and metadata when those are too large to come with others.
type opened struct {
	messages.Session
	found bool
	large bool
}

func newLookup(tenant string, m messages.SessionGetByToken) lookup {
	return lookup{tokenKey{tenant, [sha256.Size]byte(hashToken(m.Token))}, m.Touch == nil || *m.Touch}
}

// GetByToken returns the live session that a token opens, and touches it when that is due.
func (s *Service) GetByToken(ctx context.Context, tenant string, m messages.SessionGetByToken) (messages.SessionReply, error) {
	found, err := s.lookups.Do(ctx, newLookup(tenant, m))
	if err == nil && found.large {
		return s.Get(ctx, tenant, messages.SessionGet{SessionID: found.SessionID})
	}
	return found.reply(err)
}

// beginGetByToken is GetByToken without waiting.
func (s *Service) beginGetByToken(d bus.Deferred[messages.SessionReply], tenant string, m messages.SessionGetByToken) {
	s.lookups.Submit(d.Deadline(), newLookup(tenant, m), func(found opened, err error) {
		if err == nil && found.large {
			d.Go(func(ctx context.Context) (messages.SessionReply, error) {
				return s.Get(ctx, tenant, messages.SessionGet{SessionID: found.SessionID})
			})
			return
		}
		d.Reply(found.reply(err))
	})
}

func (o opened) reply(err error) (messages.SessionReply, error) {
	if err == nil && !o.found {
		err = messages.SessionNotFound()
	}
	return messages.SessionReply{Session: o.Session}, err
}

// newLookupBatcher returns the batcher of GetByToken. Equal tokens share one look-up.
func (s *Service) newLookupBatcher() *postgres.Batcher[lookup, opened] {
	run := func(ctx context.Context, lookups []lookup, results []postgres.Result[opened]) error {
		wanted := newWanted(lookups)
		return s.pool.WithBatchConn(ctx, func(ctx context.Context, db postgres.Querier) error {
			found, changing, err := findSessions(ctx, db, wanted)
			if err != nil {
				return err
			}
			if err := s.changeSessions(ctx, db, wanted, changing, found); err != nil {
				return err
			}
			for i, place := range wanted.places {
				results[i].Value = found[place]
			}
			return nil
		})
	}
	return postgres.NewBatcher(postgres.BatcherConfig[lookup]{}, run)
}

// wanted are some look-ups, turned by 90 degrees, each token once.
type wanted struct {
	tenants []string
	hashes  [][]byte
	touches []bool
	places  []int // of each look-up
}

func newWanted(lookups []lookup) wanted {
	w := wanted{
		make([]string, 0, len(lookups)), make([][]byte, 0, len(lookups)), make([]bool, 0, len(lookups)), make([]int, len(lookups)),
	}
	seen := make(map[tokenKey]int, len(lookups))
	for i := range lookups {
		l := &lookups[i]
		place, known := seen[l.tokenKey]
		if !known {
			place = len(w.tenants)
			seen[l.tokenKey] = place
			w.tenants, w.hashes, w.touches = append(w.tenants, l.tenant), append(w.hashes, l.hash[:]), append(w.touches, false)
		}
		w.touches[place] = w.touches[place] || l.touch
		w.places[i] = place
	}
	return w
}

func (w wanted) at(place int) lookup {
	return lookup{tokenKey{w.tenants[place], [sha256.Size]byte(w.hashes[place])}, w.touches[place]}
}

// The statements of a look-up, which differ in where a token is looked for. Neither writes anything. Each answers, for the tokens
// that open a live session, whether something is to be written: a touch that is due, the first use of a token, the end of a session
// whose token came after its time.
const (
	// lookUpCurrent finds the current tokens of sessions, which are in the rows of these: one probe of one index, and one row.
	lookUpCurrent = `
		SELECT wanted.place, wanted.touch AND ` + isDue + `,` + facts + dataOfBatch + `
		FROM ` + wantedTokens + `
		JOIN morello.session AS s ON s.tenant = wanted.tenant AND s.current_token = wanted.token_hash
		WHERE ` + isLive
	// lookUpAny finds any token. That one is over its time is judged by the clock after the snapshot was taken, so that who sees
	// the successor of a token used sees the token over, too.
	lookUpAny = `
		SELECT wanted.place, NOT t.used OR t.valid_until <= clock_timestamp() OR wanted.touch AND ` + isDue + `,` + facts + dataOfBatch + `
		FROM ` + wantedTokens + `
		JOIN morello.session_token AS t ON t.tenant = wanted.tenant AND t.token_hash = wanted.token_hash
		JOIN morello.session AS s ON s.tenant = t.tenant AND s.session_id = t.session_id
		WHERE ` + isLive

	wantedTokens = `unnest($1::text[], $2::bytea[], $3::boolean[]) WITH ORDINALITY AS wanted (tenant, token_hash, touch, place)`
	dataOfBatch  = `, CASE WHEN s.size_bytes <= $4 THEN s.data END, CASE WHEN s.size_bytes <= $4 THEN s.metadata END`
)

// findSessions looks up the live sessions that the tokens open, and writes nothing. It is one statement for the current tokens of
// live sessions, and a second one for all others, whatever is wrong with them. changing are the places of those for which something
// is to be written.
func findSessions(ctx context.Context, db postgres.Querier, w wanted) (found []opened, changing []int, err error) {
	found = make([]opened, len(w.tenants))
	answered := make([]bool, len(w.tenants))
	set := func(place int, changes bool, o *opened) {
		answered[place] = true
		if changes {
			changing = append(changing, place)
		} else {
			found[place] = *o
		}
	}
	if err := lookUp(ctx, db, lookUpCurrent, w, set); err != nil {
		return nil, nil, err
	}
	others, places := w.without(answered)
	if len(places) > 0 {
		err = lookUp(ctx, db, lookUpAny, others, func(place int, changes bool, o *opened) { set(places[place], changes, o) })
	}
	return found, changing, err
}

// without returns the look-ups that have no answer yet, and their places.
func (w wanted) without(answered []bool) (others wanted, places []int) {
	for place, done := range answered {
		if !done {
			others.tenants, others.hashes = append(others.tenants, w.tenants[place]), append(others.hashes, w.hashes[place])
			others.touches, places = append(others.touches, w.touches[place]), append(places, place)
		}
	}
	return others, places
}

// lookUp runs one of the statements, and hands on what it finds.
func lookUp(ctx context.Context, db postgres.Querier, sql string, w wanted, set func(place int, changes bool, o *opened)) error {
	rows, err := db.Query(ctx, sql, w.tenants, w.hashes, w.touches, maxBatched)
	if err != nil {
		return err
	}
	var place int // counted from 1
	var changes bool
	o := opened{found: true}
	o.State = messages.SessionLive
	targets := append([]any{&place, &changes}, factTargets(&o.Session)...)
	_, err = pgx.ForEachRow(rows, append(targets, (*[]byte)(&o.Data), (*[]byte)(&o.Metadata)), func() error {
		o.large = o.Data == nil
		set(place-1, changes, &o)
		o.Data, o.Metadata = nil, nil
		return nil
	})
	return err
}

// changeSessions writes what is to be written for the look-ups at some places, and sets what they found.
func (s *Service) changeSessions(ctx context.Context, db postgres.Querier, w wanted, changing []int, found []opened) error {
	at := make(map[tokenKey]int, len(changing))
	again := make([]lookup, len(changing))
	for i, place := range changing {
		again[i] = w.at(place)
		at[again[i].tokenKey] = place
	}
	for len(again) > 0 {
		did, err := openSessions(ctx, db, newWanted(again))
		if err != nil {
			return err
		}
		for key, session := range did.sessions {
			found[at[key]] = session
		}
		for key, session := range did.revoked {
			bus.Emit(s.events, messages.SessionTokenReusedEvent, key.tenant, session)
		}
		again = did.lost
	}
	return nil
}

// opening is what a batch of look-ups found and did.
type opening struct {
	sessions map[tokenKey]opened
	revoked  map[sessionKey]messages.SessionRef // deleted, because of a token that came after its time
	lost     []lookup                           // that met another change of the same token: to be looked up again
}

// openSessions looks up the live sessions that the tokens open, and writes what is to be written: last_seen_at when a touch is due,
// the first use of a token, the end of a session.
//
// What it decides to write it decides again under the lock of the session: of many who find a touch due one writes it. Locks are
// taken in the order of the ids. The first use of a token changes what others see, and so answers with the session as it is under
// the lock. That a token is over its time does not change again; it is judged as findSessions does.
func openSessions(ctx context.Context, db postgres.Querier, w wanted) (opening, error) {
	const answer = columns + `,
			CASE WHEN s.size_bytes <= $4 THEN s.data END, CASE WHEN s.size_bytes <= $4 THEN s.metadata END`
	const sql = `
		WITH found AS MATERIALIZED (
			SELECT t.token_hash, NOT t.used AS fresh, t.valid_until <= clock_timestamp() AS reused, wanted.touch AND ` + isDue + ` AS due, s.*
			FROM unnest($1::text[], $2::bytea[], $3::boolean[]) AS wanted (tenant, token_hash, touch)
			JOIN morello.session_token AS t ON t.tenant = wanted.tenant AND t.token_hash = wanted.token_hash
			JOIN morello.session AS s ON s.tenant = t.tenant AND s.session_id = t.session_id
			WHERE ` + isLive + `
		), held AS MATERIALIZED (
			SELECT f.reused, f.due, f.fresh_hash, s.*
			FROM (
				SELECT tenant, session_id, bool_or(reused) AS reused, bool_or(due) AS due,
					(array_agg(token_hash) FILTER (WHERE fresh))[1] AS fresh_hash
				FROM found WHERE due OR fresh OR reused GROUP BY tenant, session_id
			) AS f
			JOIN morello.session AS s ON s.tenant = f.tenant AND s.session_id = f.session_id
			WHERE ` + isLive + `
			ORDER BY s.tenant, s.session_id
			FOR NO KEY UPDATE OF s
		), changed AS (
			UPDATE morello.session AS s SET
				last_seen_at = CASE WHEN held.reused THEN s.last_seen_at ELSE greatest(s.last_seen_at, now()) END,
				ended_at = CASE WHEN held.reused THEN clock_timestamp() END, deleted = held.reused
			FROM held
			WHERE s.tenant = held.tenant AND s.session_id = held.session_id
				AND s.ended_at IS NULL AND ` + diesAt + ` > clock_timestamp() AND (held.reused OR held.due AND ` + isDue + `)
			RETURNING s.tenant, s.session_id, s.deleted
		), used AS (
			UPDATE morello.session_token AS t SET used = true
			FROM held
			WHERE NOT held.reused AND t.tenant = held.tenant AND t.token_hash = held.fresh_hash AND t.valid_until > clock_timestamp()
			RETURNING t.tenant, t.token_hash, t.session_id, t.generation, t.grace
		), aged AS (
			UPDATE morello.session_token AS t SET valid_until = clock_timestamp() + used.grace
			FROM used
			WHERE t.tenant = used.tenant AND t.session_id = used.session_id
				AND t.generation < used.generation AND t.valid_until = 'infinity'
		)
		SELECT s.tenant, s.token_hash, s.due, s.reused, s.fresh, s.size_bytes > $4, now(),
			s.reused AND EXISTS (SELECT FROM changed AS c WHERE c.tenant = s.tenant AND c.session_id = s.session_id AND c.deleted),
			` + answer + `
		FROM found AS s
		WHERE NOT s.fresh OR NOT EXISTS (SELECT FROM used AS u WHERE u.tenant = s.tenant AND u.token_hash = s.token_hash)
		UNION ALL
		SELECT s.tenant, s.fresh_hash, s.due, false, false, s.size_bytes > $4, now(), false, ` + answer + `
		FROM used JOIN held AS s ON s.tenant = used.tenant AND s.session_id = used.session_id`
	rows, err := db.Query(ctx, sql, w.tenants, w.hashes, w.touches, maxBatched)
	if err != nil {
		return opening{}, err
	}
	did := opening{sessions: make(map[tokenKey]opened, len(w.tenants)), revoked: map[sessionKey]messages.SessionRef{}}
	var key tokenKey
	var hash []byte
	var now time.Time
	var due, reused, lost, revoked bool
	o := opened{found: true}
	targets := append([]any{&key.tenant, &hash, &due, &reused, &lost, &o.large, &now, &revoked}, sessionTargets(&o.Session)...)
	_, err = pgx.ForEachRow(rows, targets, func() error {
		copy(key.hash[:], hash)
		switch hit := o; {
		case revoked:
			did.revoked[sessionKey{key.tenant, hit.SessionID}] = ref(hit.Session)
		case lost:
			did.lost = append(did.lost, lookup{tokenKey: key})
		case !reused:
			if due && hit.LastSeenAt.Before(now) {
				hit.LastSeenAt = now
			}
			did.sessions[key] = hit
		}
		o.Data, o.Metadata = nil, nil
		return nil
	})
	return did, err
}
