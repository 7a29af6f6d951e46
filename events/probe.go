package events

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/openvantage/vantage/probe"
)

// changed is the payload of a probe's own events: what probe.Change says beyond the columns
// of the log.
type changed struct {
	From            string      `json:"from,omitempty"`
	To              string      `json:"to,omitempty"`
	Reason          string      `json:"reason,omitempty"`
	Actor           string      `json:"actor,omitempty"`
	LastHeartbeatAt *time.Time  `json:"lastHeartbeatAt,omitempty"`
	TransitionTimes []time.Time `json:"transitionTimes,omitempty"`
	StableSince     *time.Time  `json:"stableSince,omitempty"`
}

// OfProbe is the event that announces a change of p.
func OfProbe(p probe.Probe, c probe.Change) Event {
	return Event{
		OccurredAt: c.At, Kind: Kind(c.Kind), Subject: string(p.ID), Country: p.Country, ASN: p.ASN,
		Payload: Payload(changed{
			From: c.From, To: c.To, Reason: c.Reason, Actor: c.Actor, TransitionTimes: c.TransitionTimes,
			LastHeartbeatAt: optional(c.LastHeartbeatAt), StableSince: optional(c.StableSince),
		}),
		RuleID: c.RuleID, RuleVersion: c.RuleVersion,
	}
}

// Change gives back what OfProbe was made from, so that a probe's state can be folded from
// the log. It fails when the event is not a probe's own.
func (e Event) Change() (probe.Change, error) {
	var c changed
	if err := json.Unmarshal(e.Payload, &c); err != nil {
		return probe.Change{}, fmt.Errorf("event %d is no change of a probe: %w", e.Seq, err)
	}
	return probe.Change{
		Kind: probe.Kind(e.Kind), At: e.OccurredAt, From: c.From, To: c.To, Reason: c.Reason, Actor: c.Actor,
		TransitionTimes: c.TransitionTimes, LastHeartbeatAt: value(c.LastHeartbeatAt), StableSince: value(c.StableSince),
		RuleID: e.RuleID, RuleVersion: e.RuleVersion,
	}, nil
}

// Payload writes one of this package's payload types.
func Payload(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own types always encode
	}
	return b
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func value(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
