package model

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/openvantage/vantage/alert"
	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/probe"
)

// An Event is an event of the log as the viewer may see it.
type Event struct {
	ID          string
	Cursor      string
	Seq         int64
	OccurredAt  time.Time
	RecordedAt  time.Time
	Kind        events.Kind
	Summary     string
	Country     *Country
	Network     *Network
	RuleID      *string
	RuleVersion *int
	CausedBy    []int64
	URL         string

	SubjectID string // empty when there is none
}

// IsNode marks an entity.
func (*Event) IsNode() {}

// staffOnly are the kinds that are nobody else's business.
var staffOnly = map[events.Kind]bool{
	events.TokenCreated: true, events.SubmissionDiscarded: true, events.Kind(probe.RetiredAlive): true,
	events.Kind(probe.PlaceObserved): true,
	events.AgreementRecorded:         true,
	events.InvestigationOpened:       true, events.InvestigationJoined: true, events.InvestigationClosed: true,
	events.Kind(probe.WorkflowStateChanged): true, events.Kind(probe.WorkflowActionOrdered): true, events.Kind(probe.WorkflowActionReported): true,
	events.Kind(probe.WorkflowSnoozed): true, events.Kind(probe.WorkflowAnswered): true,
	events.Kind(alert.Opened): true, events.Kind(alert.Changed): true, events.Kind(alert.Acknowledged): true, events.Kind(alert.Ended): true,
}

// HiddenKinds lists the kinds that the viewer must not see.
func HiddenKinds(v Viewer) (hidden []string) {
	if v.Principal.Staff() {
		return nil
	}
	for k := range staffOnly {
		hidden = append(hidden, string(k))
	}
	return hidden
}

// NewEvent shows e to the viewer; nil when it is not the viewer's to see. p is the probe that
// e is about, and the zero Probe when it is about none.
func NewEvent(v Viewer, e events.Event, p db.Probe) *Event {
	if staffOnly[e.Kind] && !v.Principal.Staff() {
		return nil
	}
	if impairs(e.Kind) && !v.Networks.SeesNetwork(v.Principal, p.ID, p.Peers) {
		return nil
	}
	out := &Event{
		ID: eventPrefix + strconv.FormatInt(e.Seq, 10), Cursor: LogCursor(e.Position()), Seq: e.Seq,
		OccurredAt: e.OccurredAt, RecordedAt: e.RecordedAt, Kind: e.Kind, SubjectID: e.Subject,
		RuleID: text(e.RuleID), CausedBy: e.CausedBy, URL: "/explorer/event/" + strconv.FormatInt(e.Seq, 10),
		Network: NewNetwork(e.ASN), Summary: summary(v, e, p),
	}
	if e.Country != "" {
		out.Country = NewCountry(e.Country)
	}
	if e.RuleID != "" {
		out.RuleVersion = &e.RuleVersion
	}
	if p.ID != "" && !v.Networks.SeesNetwork(v.Principal, p.ID, p.Peers) {
		out.Network = nil
	}
	return out
}

// OfProbe returns the probe that an event is about; false when it is about something else.
func OfProbe(e events.Event) (probe.ID, bool) {
	n, ok := ParseNodeID(e.Subject)
	return n.Probe, ok && n.Probe != ""
}

// summary is the event in a sentence: the same on pages, in digests and in feeds.
func summary(v Viewer, e events.Event, p db.Probe) string {
	name := p.DisplayName
	if name == "" {
		name = e.Subject
	}
	switch e.Kind {
	case events.CauseChanged:
		return causeSummary(v, e, name)
	case events.InvestigationOpened, events.InvestigationJoined, events.InvestigationClosed:
		return investigationSummary(e)
	case events.MeasurementScored:
		return scoredSummary(e)
	case events.MeasurementRescored:
		return rescoredSummary(e)
	case events.SubmissionDiscarded:
		var d events.Discarded
		_ = json.Unmarshal(e.Payload, &d)
		return "A submission was kept aside. " + measurement.Discard(d.Reason).String()
	case events.OutageOpened:
		return "We cannot observe: " + outageReason(e)
	case events.OutageClosed:
		return "We can observe again. " + outageReason(e)
	case events.FingerprintsImported:
		var i events.Imported
		_ = json.Unmarshal(e.Payload, &i)
		return fmt.Sprintf("Fingerprint set %d is in use: %d for DNS, %d for HTTP.", i.Version, i.DNS, i.HTTP)
	case events.TestListsImported, events.URLPriorityChanged:
		return listSummary(e)
	case events.TokenCreated:
		var t events.Token
		_ = json.Unmarshal(e.Payload, &t)
		return fmt.Sprintf("A token of the %s role was made for %s.", t.Role, t.Name)
	case events.ReleaseRecorded:
		var r events.Release
		_ = json.Unmarshal(e.Payload, &r)
		return fmt.Sprintf("Version %s for %s probes was released.", r.Version, r.Type)
	case events.Kind(probe.WorkflowStateChanged), events.Kind(probe.WorkflowActionOrdered), events.Kind(probe.WorkflowActionReported),
		events.Kind(probe.WorkflowSnoozed), events.Kind(probe.WorkflowAnswered):
		return workflowSummary(name, e)
	case events.Kind(alert.Opened), events.Kind(alert.Changed), events.Kind(alert.Acknowledged), events.Kind(alert.Ended):
		return alertSummary(e)
	default:
	}
	if impairs(e.Kind) {
		return name + ": " + impairedSummary(v, e, p)
	}
	if c, err := e.PlaceChange(); err == nil {
		return fmt.Sprintf("%s: its address now shows it in %s, and showed it in %s before.", name, where(c.To), where(c.From))
	}
	if of := standingSummary(e); of != "" {
		return name + of
	}
	if events.AboutCoverage(e.Kind) || e.Kind == events.MonitoringChanged || e.Kind == events.AgreementRecorded {
		return coverageSummary(e, name)
	}
	c, err := e.Change()
	switch {
	case err != nil:
		return name + " changed."
	case c.From != "":
		return fmt.Sprintf("%s went from %s to %s. %s", name, c.From, c.To, c.Reason)
	default:
		return name + ": " + c.Reason
	}
}

func where(p probe.Place) string {
	cc, asn := "an unknown country", "an unknown network"
	if p.Country != "" && p.Country != country.Unknown {
		cc = string(p.Country)
	}
	if p.ASN != network.Unknown {
		asn = p.ASN.String()
	}
	return cc + " and " + asn
}

func impairs(k events.Kind) bool {
	return k == events.Kind(probe.ImpairmentRaised) || k == events.Kind(probe.ImpairmentCleared)
}

func impairedSummary(v Viewer, e events.Event, p db.Probe) string {
	c, err := e.ImpairmentChange()
	switch {
	case err != nil:
		return "Something is wrong with it."
	case v.Principal.SeesAll(p.ID):
		return fmt.Sprintf("%s. %s", c.Impairment, c.Reason)
	case c.Event == probe.ImpairmentCleared:
		return fmt.Sprintf("%s is over.", c.Impairment)
	default:
		return fmt.Sprintf("%s. %s", c.Impairment, impairedGenerally(c.Impairment))
	}
}

func causeSummary(v Viewer, e events.Event, name string) string {
	c, _ := e.Cause()
	if c.To == probe.NoCause {
		return "The silence of " + name + " is labelled no more. " + wording(v, c.Explanation)
	}
	return fmt.Sprintf("The silence of %s reads %s. %s", name, c.To, wording(v, c.Explanation))
}

func investigationSummary(e events.Event) string {
	i, _ := e.Investigation()
	where := NewCountry(e.Country).Name
	switch e.Kind {
	case events.InvestigationJoined:
		return fmt.Sprintf("The silence of %s, %s, is to be looked into with others in %s.", i.Probe, i.Cause, where)
	case events.InvestigationClosed:
		return fmt.Sprintf("%s closed the investigation in %s: %s", i.Actor, where, i.Finding)
	default:
		return "Silences in " + where + " are to be looked into."
	}
}

func scoredSummary(e events.Event) string {
	var m events.Scored
	_ = json.Unmarshal(e.Payload, &m)
	of := m.TestName
	if m.Input != "" {
		of += " of " + m.Input
	}
	verdict := "shows nothing unusual"
	switch {
	case m.Failure:
		verdict = "failed"
	case m.Confirmed:
		verdict = "matched a known block page or blocking address"
	case m.Anomaly:
		verdict = "shows an anomaly"
	}
	return fmt.Sprintf("One measurement, %s in %s on %s, %s.", of, e.Country, e.ASN, verdict)
}

func rescoredSummary(e events.Event) string {
	var m events.Rescored
	_ = json.Unmarshal(e.Payload, &m)
	before := "as before"
	if m.Outcome != m.Before.Outcome {
		before = fmt.Sprintf("instead of %s", m.Before.Outcome)
	}
	return fmt.Sprintf("%s when judged again: %s %s.", strings.TrimSuffix(scoredSummary(e), "."), m.Outcome, before)
}

func outageReason(e events.Event) string {
	var o events.Outage
	_ = json.Unmarshal(e.Payload, &o)
	return OutageReason(probe.Cause(o.Cause))
}

// OutageReason is the cause in a sentence.
func OutageReason(c probe.Cause) string {
	switch c {
	case probe.ServerDown:
		return "No server of ours was running."
	case probe.CanariesSilent:
		return "Our own canaries outside the countries of probes were not heard."
	case probe.SilenceAcrossCountries:
		return "Many probes in several countries fell silent at once, so the fault was taken to be ours."
	}
	return string(c)
}
