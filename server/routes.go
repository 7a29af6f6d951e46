package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/openvantage/vantage/graph"
	"github.com/openvantage/vantage/ooniapi"
	"github.com/openvantage/vantage/resolvers"
	"github.com/openvantage/vantage/web"
)

// Patience with clients. Our decisions: generous to slow links, final to those who only hold
// a connection.
const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = 2 * time.Minute
	answerTimeout = 5 * time.Minute // streams have their own
	idleTimeout   = 2 * time.Minute
	headerBytes   = 32 << 10
	// websocketBytes is the largest message from a client: a document and its variables.
	websocketBytes = 64 << 10
)

func (s *Server) routes(ctx context.Context, version string) error {
	sources, err := newSources(s.cfg.TrustedProxies)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(graph.SDL()))
	hash := hex.EncodeToString(sum[:])
	s.rates = s.newLedger()
	resolver := &resolvers.Resolver{
		DB: s.db, Flows: s.flows, Networks: s.cfg.PublicNetworks, Version: version, SchemaHash: hash,
		LimitsFor: s.limitsFor, RateLimitFor: s.rateLimitFor, MayRegister: s.mayRegister,
		Observe: s.observe, Safe: s.safe, Streams: s.streams,
	}
	auth := authenticator{flows: s.flows, sources: sources, guessed: s.guessed, fail: s.writeFault}
	s.engine = s.newEngine(resolver, auth)

	mux := http.NewServeMux()
	mux.Handle("/graphql", page(auth.wrap(s.engine)))
	mux.Handle("GET /schema.graphql", schemaHandler(hash))
	mux.Handle("GET /healthz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") }))
	mux.Handle("GET /readyz", http.HandlerFunc(s.ready))
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	services, err := probeServices(s.cfg.ProbeServicesFile)
	if err != nil {
		return fmt.Errorf("PROBE_SERVICES_FILE: %w", err)
	}
	rest := auth.wrap((&ooniapi.API{
		DB: s.db, Flows: s.flows, Body: s.flows.Body, Principal: resolvers.Principal, PublicURL: strings.TrimSuffix(s.cfg.PublicURL, "/"),
		Fail: s.writeFault, Charge: s.charge, Place: s.place, Locate: s.locate, Limits: s.limits, Services: services,
	}).Handler())
	for _, path := range []string{"/api/", "/report", "/report/", "/bouncer/"} {
		mux.Handle(path, rest)
	}
	mux.Handle("GET "+archivePath, auth.wrap(http.HandlerFunc(s.download)))
	if s.queue, err = s.newJobsPage(auth); err != nil {
		return err
	}
	mux.Handle(jobsPath+"/", s.queue)
	mux.Handle("GET "+jobsPath, http.RedirectHandler(jobsPath+"/", http.StatusSeeOther))
	mux.Handle("/", web.Handler())
	s.api = s.httpServer(ctx, s.requestID(mux))

	beats := http.NewServeMux()
	beats.Handle("POST /heartbeat", auth.wrap(http.HandlerFunc(s.heartbeat)))
	beats.Handle("GET /healthz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") }))
	s.beats = s.httpServer(ctx, s.requestID(beats))
	return nil
}

// probeServices reads the setting; "" is the defaults.
func probeServices(file string) (ooniapi.Services, error) {
	if file == "" {
		return ooniapi.DefaultServices(), nil
	}
	f, err := os.Open(file)
	if err != nil {
		return ooniapi.Services{}, err
	}
	defer f.Close()
	return ooniapi.ReadServices(f)
}

func (s *Server) httpServer(ctx context.Context, h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: headerBytes, ErrorLog: stdLogger(s.log),
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
}

// page sends browsers that open /graphql to GraphiQL.
func page(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && prefersHTML(r) {
			http.Redirect(w, r, "/graphiql", http.StatusSeeOther)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func schemaHandler(hash string) http.Handler {
	etag := `"` + hash + `"`
	sdl := []byte(graph.SDL())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(sdl))
	})
}

// ready answers whether this server can do its work: the database answers, and the log is
// followed.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if _, err := s.db.LogFloor(ctx); err != nil {
		writeText(w, http.StatusServiceUnavailable, "The database does not answer.\n")
		return
	}
	if _, lag := s.flows.Here(); lag > time.Duration(float64(10*time.Second)*s.cfg.ClockRate) {
		writeText(w, http.StatusServiceUnavailable, "The event log is not being followed.\n")
		return
	}
	writeText(w, http.StatusOK, "ready\n")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // the client is gone if this fails
}
