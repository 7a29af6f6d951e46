package model

import (
	"encoding/hex"
	"strconv"
	"time"

	"github.com/openvantage/vantage/db"
)

// A Pack is bodies that were archived together.
type Pack struct {
	ID               string
	Hour             time.Time
	Country          *Country
	TestName         string
	MeasurementCount int
	ArchivedAt       time.Time
	DamagedAt        *time.Time
	Posts            *ArchiveFile
	Lines            *ArchiveFile
	URL              string
}

// An ArchiveFile is one of its two files.
type ArchiveFile struct {
	Name      string
	URL       string
	SizeBytes int64
	Sha256    string
}

// IsNode marks an entity.
func (*Pack) IsNode() {}

// NewPack shows a pack to anybody.
func NewPack(p db.Pack) *Pack {
	out := &Pack{
		ID: packPrefix + strconv.FormatInt(p.ID, 10), Hour: p.Pile.Hour, Country: NewCountry(p.Pile.Country), TestName: p.Pile.TestName,
		MeasurementCount: p.Bodies, ArchivedAt: p.PackedAt,
		Posts: newArchiveFile(p.Posts.Name, p.Posts.Size, p.Posts.SHA256), Lines: newArchiveFile(p.Lines.Name, p.Lines.Size, p.Lines.SHA256),
	}
	if !p.DamagedAt.IsZero() {
		out.DamagedAt = &p.DamagedAt
	}
	out.URL = out.Posts.URL
	return out
}

func newArchiveFile(name string, size int64, sum [32]byte) *ArchiveFile {
	return &ArchiveFile{Name: name, URL: "/archive/" + name, SizeBytes: size, Sha256: hex.EncodeToString(sum[:])}
}
