package model

import (
	"strconv"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/db"
)

// A Service is the server and what it can vouch for. The rest is resolved when asked for.
type Service struct {
	Version    string
	SchemaHash string
	Now        time.Time
	Limits     *Limits
}

// A Viewing is who asks, as the API shows it.
type Viewing struct {
	Role access.Role
	Name *string
}

// NewViewing shows the principal to itself.
func NewViewing(p access.Principal) *Viewing { return &Viewing{Role: p.Role, Name: text(p.Name)} }

// A Token is a token without its secret.
type Token struct {
	ID        string
	Role      access.Role
	Name      string
	CreatedAt time.Time
}

// IsNode marks an entity.
func (*Token) IsNode() {}

// NewToken shows a token; who may see it is for the caller to know.
func NewToken(t db.Token) *Token {
	return &Token{ID: tokenPrefix + strconv.FormatInt(t.ID, 10), Role: t.Role, Name: t.Name, CreatedAt: t.CreatedAt}
}

// NewObserverOutage shows an outage.
func NewObserverOutage(o db.Outage) *ObserverOutage {
	return &ObserverOutage{From: o.From, To: optional(o.To), Reason: OutageReason(o.Cause)}
}

// NewFingerprintSet shows a set.
func NewFingerprintSet(s db.FingerprintSet) *FingerprintSet {
	return &FingerprintSet{Version: s.Version, ImportedAt: s.ImportedAt, Source: s.Source, DNSCount: s.DNS, HTTPCount: s.HTTP}
}
