package server_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/service"
)

// unheard is a meter that nobody reads.
type unheard struct{}

func (unheard) Heartbeat(string, time.Duration) {}
func (unheard) Submission(string)               {}
func (unheard) Refused(string)                  {}
func (unheard) Scored(time.Duration)            {}
func (unheard) Relayed(time.Duration)           {}
func (unheard) Packed(string)                   {}
func (unheard) Spooled(int64)                   {}
func (unheard) Damaged()                        {}

// A measurement that was judged again says so, to everybody, and of the probe that made it no more than before.
func TestRescored(t *testing.T) {
	t.Parallel()
	a := start(t)
	operator := a.issue(t, access.Operator)
	p := a.register(t, "IT", 30722)
	a.activate(t, operator, p)
	uid := str(t, a.submit(t, p.secret, body(object{
		"test_name": "web_connectivity", "input": "https://example.org/",
		"test_keys": object{"blocking": "http-diff", "accessible": false, "requests": []any{object{
			"failure": nil, "response": object{"code": 200, "headers": object{}, "body": "<html>This is blocked.</html>"},
		}}},
	})), "measurement", "uid")
	news := a.subscribe(t, "", `subscription ($after: Cursor) { events(filter: {kinds: [MEASUREMENT_RESCORED]}, after: $after) { kind summary country { code }
		subject { ... on Measurement { uid confirmed probe { id } } } } }`, object{"after": a.origin(t)})
	d, err := db.Open(t.Context(), a.dsn, db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	if _, err := service.ImportFingerprints(t.Context(), d, "test", []measurement.Fingerprint{
		{Name: "known", Scope: "nat", LocationFound: "body", PatternType: "contains", Pattern: "This is blocked."},
	}); err != nil {
		t.Fatal(err)
	}
	s, err := service.New(t.Context(), d, service.DefaultRules(), unheard{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := s.Rescore(t.Context(), service.Rescoring{})
	if err != nil || sum.Announced != 1 {
		t.Fatalf("%+v %v", sum, err)
	}
	e := at(t, next(t, news), "events")
	equal(t, at(t, e, "subject"), any(object{"uid": uid, "confirmed": true, "probe": nil}))
	equal(t, str(t, e, "summary"), "One measurement, web_connectivity of https://example.org/ in IT on AS30722, matched a known block page or blocking address "+
		"when judged again: BLOCKED instead of INSUFFICIENT.")
	const ask = `query ($uid: ID!) { measurement(uid: $uid) { confirmed verdict { outcome } earlierVerdicts { replacedAt anomaly confirmed failure
		verdict { outcome } scores { blockingGeneral } scorerVersion fingerprintVersion } } }`
	m := at(t, a.ask(t, "", ask, object{"uid": uid}), "measurement")
	earlier := list(t, m, "earlierVerdicts")
	if len(earlier) != 1 || fmt.Sprint(at(t, earlier[0], "confirmed")) != "false" || str(t, earlier[0], "verdict", "outcome") != "INSUFFICIENT" ||
		at(t, earlier[0], "fingerprintVersion") != nil || str(t, earlier[0], "scorerVersion") != measurement.ScorerVersion {
		t.Errorf("before, it said %v", earlier)
	}
	equal(t, str(t, m, "verdict", "outcome"), "BLOCKED")
	if said := fmt.Sprint(e, m); strings.Contains(said, p.id) {
		t.Errorf("the public learns the probe: %s", said)
	}
}
