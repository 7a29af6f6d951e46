package server

import (
	"context"

	"github.com/openvantage/vantage/resolvers"
)

// Hollow gives a server that does not serve yet resolvers that have nothing to ask: what they do
// ends in a panic.
func (s *Server) Hollow() {
	_ = s.engine.Close(context.Background()) // it has done nothing
	sources, _ := newSources(nil)            // no networks are none that are wrong
	auth := authenticator{flows: s.flows, sources: sources, guessed: s.guessed, fail: s.writeFault}
	s.engine = s.newEngine(&resolvers.Resolver{Safe: s.safe, Streams: s.streams}, auth)
	s.api.Handler = s.requestID(page(auth.wrap(s.engine)))
}

// Archive archives what is due now.
func (s *Server) Archive(ctx context.Context) error { return s.flows.Pack(ctx) }
