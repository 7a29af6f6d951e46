//go:build e2e

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/client"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/probe"
)

// unhurried lets probes send heartbeats as fast as they can.
const unhurried = "HEARTBEAT_MIN_INTERVAL=0s"

// TestKill kills the server again and again under load, and every other time its database with it.
// Whatever it has acknowledged must be there afterwards, and whoever follows must be told of it once.
func TestKill(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	const kills, workers = 4, 4
	s := serve(t, unhurried)
	operator := s.operator(t)
	feed := subscribe[scored](ctx, t, operator, "measurementScored", measurementScored, map[string]any{"after": cursor(ctx, t, operator)}, nil)

	l := &load{operator: operator, bodies: map[measurement.ID]string{}, heard: map[probe.ID]time.Time{}}
	working, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for n := range workers {
		wg.Go(func() { l.work(working, t, n) })
	}
	for n := range kills {
		enough := l.acknowledged() + 100 + rand.IntN(200)
		eventually(t, soon, "more is acknowledged", func() bool { return l.acknowledged() >= enough })
		database := s.databaseID(t)
		if n%2 == 1 { // a crash of everything, as when memory runs out
			s.process.hurt = true // it may outlive its database long enough to say so
			if err := syscall.Kill(database, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}
		s.kill(t)
		began := time.Now()
		s.start(t)
		t.Logf("killed after %d acknowledgements, ready again in %v", l.acknowledged(), time.Since(began).Round(time.Millisecond))
		if now := s.databaseID(t); now == database {
			t.Errorf("the database is still that of the killed server, process %d", now)
		}
		eventually(t, soon, "the killed server's database is gone", func() bool { return !alive(database) })
	}
	enough := l.acknowledged() + 100
	eventually(t, soon, "more is acknowledged", func() bool { return l.acknowledged() >= enough })
	stop()
	wg.Wait()

	l.check(ctx, t, s, feed)
}

// databaseID is the process of the server's private PostgreSQL.
func (s *server) databaseID(t *testing.T) int {
	t.Helper()
	b := must[[]byte](t)(os.ReadFile(filepath.Join(s.dir, "data", "pg", "postmaster.pid")))
	first, _, _ := strings.Cut(string(b), "\n")
	return must[int](t)(strconv.Atoi(first))
}

// alive tells a process from none, and from one that has ended and waits to be reaped.
func alive(pid int) bool {
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && strings.Contains(string(b), ") Z ") {
		return false
	}
	return syscall.Kill(pid, 0) == nil
}

// A load is what probes did, and what of it the server has acknowledged.
type load struct {
	operator *client.Client
	mu       sync.Mutex
	count    int
	bodies   map[measurement.ID]string // the SHA-256 of each
	heard    map[probe.ID]time.Time    // the last heartbeat of each probe
}

func (l *load) acknowledge(note func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	note()
}

func (l *load) acknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// work registers a probe now and then, and sends what a probe sends as fast as it is taken.
func (l *load) work(ctx context.Context, t *testing.T, worker int) {
	t.Helper()
	var b *beater
	for n := 0; ctx.Err() == nil; n++ {
		key := fmt.Sprintf("%s-%d-%d", t.Name(), worker, n)
		if n%50 == 0 {
			b = &beater{}
			l.insist(ctx, t, func() error {
				r, err := l.operator.Register(ctx, client.Registration{IdempotencyKey: key, Country: "IT", ASN: homeNetwork})
				if err == nil {
					b.id, b.api = r.ID, l.operator.As(r.Secret)
					l.acknowledge(func() { l.heard[r.ID] = time.Time{} })
				}
				return err
			})
			if b.api == nil {
				return
			}
		}
		l.insist(ctx, t, func() error {
			err := b.beat(ctx)
			if err == nil {
				l.acknowledge(func() { l.heard[b.id] = b.last() })
			}
			return err
		})
		body := fmt.Appendf(nil, `{"measurement_start_time":%q,"probe_asn":"AS64512","probe_cc":"IT","report_id":%q,"software_name":"e2e",`+
			`"software_version":"1.0.0","test_keys":{},"test_name":"e2e","test_start_time":%[1]q,"test_version":"0.1.0"}`,
			time.Now().UTC().Format(time.DateTime), key)
		l.insist(ctx, t, func() error {
			o, err := b.api.Submit(ctx, client.Submission{Content: body, IdempotencyKey: key})
			if err == nil {
				sum := sha256.Sum256(body)
				l.acknowledge(func() { l.bodies[o.ID] = hex.EncodeToString(sum[:]) })
			}
			return err
		})
	}
}

// insist tries again while the server is away.
func (l *load) insist(ctx context.Context, t *testing.T, do func() error) {
	t.Helper()
	for {
		err := do()
		if err == nil || ctx.Err() != nil {
			return
		}
		if !client.Retriable(err) {
			t.Errorf("the server refused: %v", err)
			return
		}
		if client.Wait(ctx, pollEvery) != nil {
			return
		}
	}
}

// check asks the server for all that it has acknowledged.
func (l *load) check(ctx context.Context, t *testing.T, s *server, feed *feed[scored]) {
	t.Helper()
	news := map[measurement.ID]string{}
	eventually(t, soon, "the subscriber is told of every measurement", func() bool {
		for _, n := range feed.all() {
			news[n.Measurement.UID] = n.Measurement.BodySha256
		}
		return containsAll(news, l.bodies)
	})
	checkOrder(t, feed.all())
	t.Logf("%d measurements and %d probes were acknowledged; the subscriber was told of %d", len(l.bodies), len(l.heard), len(news))
	stored := map[measurement.ID]string{}
	for uid := range l.bodies {
		var out struct {
			Measurement struct{ BodySha256, BodyURL string }
		}
		if err := l.operator.Do(ctx, `query M($uid: ID!) { measurement(uid: $uid) { bodySha256 bodyUrl } }`, map[string]any{"uid": uid}, &out); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(s.fetch(ctx, t, out.Measurement.BodyURL))
		if stored[uid] = hex.EncodeToString(sum[:]); stored[uid] != out.Measurement.BodySha256 {
			t.Errorf("%s: the body is not the one that the measurement was made of", uid)
		}
	}
	if diff := cmp.Diff(l.bodies, stored); diff != "" {
		t.Errorf("acknowledged bodies (-sent +stored):\n%s", diff)
	}
	for id, at := range l.heard {
		var out struct {
			Probe *struct{ LastHeartbeatAt time.Time }
		}
		if err := l.operator.Do(ctx, `query P($id: ID!) { probe(id: $id) { lastHeartbeatAt } }`, map[string]any{"id": id}, &out); err != nil {
			t.Fatal(err)
		}
		if out.Probe == nil || out.Probe.LastHeartbeatAt.Before(at) {
			t.Errorf("probe %s was heard at %v, and the server knows of %v", id, at, out.Probe)
		}
	}
}

// containsAll reports whether all has whatever some has.
func containsAll(all, some map[measurement.ID]string) bool {
	for uid, sum := range some {
		if all[uid] != sum {
			return false
		}
	}
	return true
}
