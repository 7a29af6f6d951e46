package model

import (
	"strconv"
	"strings"

	"github.com/openvantage/vantage/country"
	"github.com/openvantage/vantage/measurement"
	"github.com/openvantage/vantage/network"
	"github.com/openvantage/vantage/probe"
)

// Prefixes of global ids. A probe's id has its own.
const (
	measurementPrefix = "msm_"
	countryPrefix     = "cty_"
	networkPrefix     = "net_"
	eventPrefix       = "evt_"
	heartbeatPrefix   = "hbt_"
	tokenPrefix       = "tok_"
	replacementPrefix = "rpl_"
	auditPrefix       = "aud_"
	taskPrefix        = "tsk_"

	causePrefix         = "cau_"
	investigationPrefix = "inv_"
	workflowPrefix      = "wfl_"
	releasePrefix       = "rel_"
	alertPrefix         = "alr_"
	silencePrefix       = "sil_"
	digestPrefix        = "dig_"
	webhookPrefix       = "whk_"
	listVersionPrefix   = "tlv_"
	urlPriorityPrefix   = "upr_"
	faultyPrefix        = "flt_"
	packPrefix          = "pck_"
)

// A NodeID is a global id taken apart: exactly one field is set.
type NodeID struct {
	Probe       probe.ID
	Measurement measurement.ID
	Country     country.Code
	Network     network.ASN
	Event       int64
	Heartbeat   int64
	Token       int64
	Replacement int64
	Audit       int64
	Task        int64

	OfflineCause  int64
	Investigation int64
	Workflow      WorkflowID
	Release       int64
	Alert         int64
	Silence       int64
	Digest        int64
	Webhook       int64
	ListVersion   int64
	URLPriority   int64
	Faulty        int64
	Pack          int64
}

// ParseNodeID takes a global id apart; false when it is none of ours.
func ParseNodeID(id string) (n NodeID, ok bool) {
	if len(id) < 5 {
		return n, false
	}
	rest := id[4:]
	var err error
	switch id[:4] {
	case measurementPrefix:
		n.Measurement = measurement.ID(rest)
		_, _, ok = n.Measurement.Split()
		return n, ok
	case countryPrefix:
		// Measurements may name codes that are not assigned, and each id given out must be found.
		n.Country = country.Code(rest)
		return n, len(rest) == 2 && strings.Trim(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
	case networkPrefix:
		var a uint64
		a, err = strconv.ParseUint(rest, 10, 32)
		n.Network = network.ASN(a)
		return n, err == nil && a != 0 && strconv.FormatUint(a, 10) == rest
	case eventPrefix:
		n.Event, err = number(rest)
	case heartbeatPrefix:
		n.Heartbeat, err = number(rest)
	case tokenPrefix:
		n.Token, err = number(rest)
	case replacementPrefix:
		n.Replacement, err = number(rest)
	case auditPrefix:
		n.Audit, err = number(rest)
	case taskPrefix:
		n.Task, err = number(rest)
	case causePrefix:
		n.OfflineCause, err = number(rest)
	case investigationPrefix:
		n.Investigation, err = number(rest)
	case workflowPrefix:
		n.Workflow, err = parseWorkflowID(rest)
	case releasePrefix:
		n.Release, err = number(rest)
	case alertPrefix:
		n.Alert, err = number(rest)
	case silencePrefix:
		n.Silence, err = number(rest)
	case digestPrefix:
		n.Digest, err = number(rest)
	case webhookPrefix:
		n.Webhook, err = number(rest)
	case listVersionPrefix:
		n.ListVersion, err = number(rest)
	case urlPriorityPrefix:
		n.URLPriority, err = number(rest)
	case faultyPrefix:
		n.Faulty, err = number(rest)
	case packPrefix:
		n.Pack, err = number(rest)
	default:
		n.Probe, err = probe.ParseID(id)
	}
	return n, err == nil
}

func number(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err == nil && (n < 1 || strings.HasPrefix(s, "+") || s[0] == '0') {
		return 0, strconv.ErrSyntax
	}
	return n, err
}
