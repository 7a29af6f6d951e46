package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// TestOneSocket has queries, mutations and subscriptions go on at once on one websocket. Each gets its
// own answers, and all of them.
func TestOneSocket(t *testing.T) {
	t.Parallel()
	const rounds = 30
	a := start(t)
	p := a.register(t, "IT", 30722)
	s, err := a.openSocket(t.Context(), p.secret)
	if err != nil {
		t.Fatal(err)
	}
	after := object{"after": a.origin(t)}
	operation := func(document string, variables object) object {
		return object{"query": document, "variables": variables}
	}
	streams := map[string]object{
		"scored": operation("subscription ($after: Cursor) { measurementScored(after: $after) { seq measurement { uid } } }", after),
		"events": operation("subscription ($after: Cursor) { events(after: $after) { seq kind } }", after),
		"beats":  operation("subscription { heartbeatReceived { seq } }", nil),
		"board":  operation(presentStates, nil),
		"brief":  operation("subscription ($after: Cursor) { events(after: $after) { seq summary } }", after),
	}
	for id, o := range streams {
		if err := s.say(id, "subscribe", o); err != nil {
			t.Fatal(err)
		}
	}

	room := make(chan struct{}, 40) // fewer than may run at a time
	said := make(chan error, 1)
	go func() {
		said <- func() error {
			for n := range rounds {
				for id, o := range map[string]object{
					"submit": operation(submitDocument, object{"input": object{"content": body(nil)}}),
					"beat":   operation(beatDocument, object{"input": beat(p, "IT", 30722)}),
					"query":  operation(fmt.Sprintf("{ viewer { role } n%d: rateLimit { limit } }", n), nil),
					"bad":    operation(fmt.Sprintf("{ nothing%d }", n), nil),
				} {
					if err := enter(t.Context(), room); err != nil {
						return err
					}
					if err := s.say(fmt.Sprint(id, n), "subscribe", o); err != nil {
						return err
					}
				}
				if n == rounds/2 { // its id is free again
					if err := errors.Join(s.say("brief", "complete", nil), enter(t.Context(), room)); err != nil {
						return err
					}
					if err := s.say("brief", "subscribe", operation("{ brief: viewer { role } }", nil)); err != nil {
						return err
					}
				}
			}
			return nil
		}()
	}()

	var uids, scored []string
	results, ended := map[string]int{}, map[string]string{}
	last := map[string]int64{}
	silent := func() bool { // one of those that nothing ends
		return slices.ContainsFunc([]string{"events", "beats", "board"}, func(id string) bool { return results[id] == 0 })
	}
	for len(ended) < 4*rounds+1 || len(scored) < rounds || silent() {
		f, err := s.hear()
		if err != nil {
			t.Fatalf("after %d operations had ended, and %d measurements were told of: %v", len(ended), len(scored), err)
		}
		if how, ok := ended[f.ID]; ok {
			t.Fatalf("after %q came %v", how, f)
		}
		if f.Type != "next" {
			ended[f.ID] = f.Type
			<-room
			continue
		}
		results[f.ID]++
		var r struct {
			Data   map[string]json.RawMessage
			Errors []problem
		}
		if err := json.Unmarshal(f.Payload, &r); err != nil || len(r.Errors) > 0 {
			t.Fatalf("%s was answered %s, %v", f.ID, f.Payload, err)
		}
		if streams[f.ID] != nil && r.Data["brief"] == nil {
			m := told(t, r.Data)
			if m.Seq <= last[f.ID] && f.ID != "board" { // a snapshot is of one place
				t.Errorf("%s told of %d after %d", f.ID, m.Seq, last[f.ID])
			}
			if last[f.ID] = m.Seq; f.ID == "scored" {
				scored = append(scored, m.Measurement.UID)
			}
			continue
		}
		switch {
		case strings.HasPrefix(f.ID, "submit"):
			uids = append(uids, told(t, r.Data).Measurement.UID)
		case strings.HasPrefix(f.ID, "query"):
			if r.Data["n"+strings.TrimPrefix(f.ID, "query")] == nil {
				t.Errorf("%s was answered %s", f.ID, f.Payload)
			}
		}
	}
	if err := <-said; err != nil {
		t.Fatal(err)
	}
	for id, how := range ended {
		bad := strings.HasPrefix(id, "bad")
		if bad != (how == "error") || !bad && id != "brief" && results[id] != 1 || bad && results[id] > 0 {
			t.Errorf("%s ended with %q after %d results", id, how, results[id])
		}
	}
	slices.Sort(uids)
	slices.Sort(scored)
	equal(t, scored, uids)
	if results["brief"] == 0 {
		t.Error("brief was told nothing")
	}

	if err := s.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = s.hear()
	}
	if !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("it ended with %v", err)
	}
}

func enter(ctx context.Context, room chan<- struct{}) error {
	select {
	case room <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A tale is what the one field of a result says.
type tale struct {
	Seq         int64
	Measurement struct{ UID string }
}

func told(t *testing.T, data map[string]json.RawMessage) (m tale) {
	t.Helper()
	for _, raw := range data {
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
	}
	return m
}
