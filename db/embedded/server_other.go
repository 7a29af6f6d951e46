//go:build !unix

package embedded

import (
	"context"

	"github.com/openvantage/vantage/fault"
)

// A Server does not exist on this system.
type Server struct{ URL string }

// Start fails with UNAVAILABLE on this system.
func Start(context.Context, Config) (*Server, error) {
	return nil, fault.New(fault.Unavailable, "The embedded PostgreSQL needs Linux, macOS or another Unix. Set DATABASE_URL to a server that runs.")
}

// Stop does nothing on this system.
func (*Server) Stop(context.Context) error { return nil }

// Done is never closed on this system.
func (*Server) Done() <-chan struct{} { return nil }

// Err is nil on this system.
func (*Server) Err() error { return nil }

// Find fails with UNAVAILABLE on this system.
func Find(string) (string, error) {
	return "", fault.New(fault.Unavailable, "There is no embedded PostgreSQL on this system.")
}
