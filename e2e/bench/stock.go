//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/lru"
	"github.com/99designs/gqlgen/graphql/handler/transport"
	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/graph"
	"github.com/openvantage/vantage/graph/model"
)

// The stock peer is what a server of ours would be without package engine: the same schema and
// the same generated code, in gqlgen's own handler and websocket transport. It has no database
// and no limits; what happens is made up when it is asked to, which costs it next to nothing.
type stock struct {
	graph.ResolverRoot // is never asked for anything else
	mu                 sync.Mutex
	seq                int64
	subscribers        map[chan *model.MeasurementScored]struct{}
}

// serveStock runs the peer until ctx ends.
func serveStock(ctx context.Context, address string) error {
	p := &stock{subscribers: map[chan *model.MeasurementScored]struct{}{}}
	api := handler.New(graph.NewExecutableSchema(graph.Config{Resolvers: p}))
	api.SetQueryCache(lru.New[*ast.QueryDocument](1000)) // as handler.NewDefaultServer has it
	api.AddTransport(transport.Websocket{Implementation: overGorilla{}})
	mux := http.NewServeMux()
	mux.Handle("/graphql", api)
	mux.Handle("/metrics", promhttp.Handler())
	mux.HandleFunc("GET /subscriptions", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		fmt.Fprint(w, len(p.subscribers))
	})
	mux.HandleFunc("POST /events", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("n"))
		_ = json.NewEncoder(w).Encode(p.publish(n)) // the bench has gone
	})
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// publish tells all subscribers of n events, and returns their uids.
func (p *stock) publish(n int) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	uids := make([]string, n)
	for i := range uids {
		p.seq++
		now := time.Now().UTC()
		uids[i] = fmt.Sprintf("%s_IT_telegram_%016x", now.Format("20060102150405.000000"), p.seq)
		e := &model.MeasurementScored{
			Cursor: model.LogCursor(events.Position{Seq: p.seq, RecordedAt: now}), Seq: p.seq, OccurredAt: now,
			Measurement: &model.Measurement{UID: uids[i], TestName: "telegram", Country: model.NewCountry("IT")},
		}
		for s := range p.subscribers {
			s <- e
		}
	}
	return uids
}

// Subscription is part of graph.ResolverRoot.
func (p *stock) Subscription() graph.SubscriptionResolver { return stockSubscription{p: p} }

type stockSubscription struct {
	graph.SubscriptionResolver
	p *stock
}

// MeasurementScored is what gqlgen's manual has for a subscription: a channel for each.
func (r stockSubscription) MeasurementScored(ctx context.Context, _ *model.MeasurementFilter, _ *string) (<-chan *model.MeasurementScored, error) {
	c := make(chan *model.MeasurementScored, 16)
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	r.p.subscribers[c] = struct{}{}
	context.AfterFunc(ctx, func() {
		go func() { // what is being published must not wait for somebody who has gone
			for range c { // until it is closed
			}
		}()
		r.p.mu.Lock()
		defer r.p.mu.Unlock()
		delete(r.p.subscribers, c)
		close(c)
	})
	return c, nil
}

// overGorilla has the transport use the library that ours uses.
type overGorilla struct{}

// Accept implements transport.WebsocketImplementation.
func (overGorilla) Accept(w http.ResponseWriter, r *http.Request, o transport.WebsocketAcceptOptions) (transport.WebsocketConn, error) {
	upgrader := websocket.Upgrader{Subprotocols: o.Subprotocols, ReadBufferSize: 1024, WriteBufferSize: 1024}
	c, err := upgrader.Upgrade(w, r, o.ResponseHeader)
	return gorillaConn{c}, err
}

type gorillaConn struct{ *websocket.Conn }

// WriteClose implements transport.WebsocketConn.
func (c gorillaConn) WriteClose(code int, message string) error {
	return c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(code, message))
}

// stockName is what the table calls the peer.
const stockName = "the same schema in the stock websocket transport: "

// withStock measures the peer, in a process of its own.
func (b *bench) withStock(ctx context.Context, measure func(*stage) error) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p := &process{api: freeAddress(ctx)}
	p.cmd = exec.CommandContext(ctx, self, "-stock", p.api)
	if _, err := p.launch(ctx, "/metrics"); err != nil {
		return err
	}
	defer p.stop()
	ask := func(ctx context.Context, method, path string, out any) error {
		req, err := http.NewRequestWithContext(ctx, method, "http://"+p.api+path, nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		return json.NewDecoder(res.Body).Decode(out)
	}
	return measure(&stage{
		process: p, operation: operation{document: scored},
		cause: func(ctx context.Context, n int) ([]origin, error) {
			var uids []string
			sent := time.Now()
			err := ask(ctx, http.MethodPost, fmt.Sprintf("/events?n=%d", n), &uids)
			acknowledged := time.Now()
			origins := make([]origin, len(uids))
			for i, uid := range uids {
				origins[i] = origin{uid, sent, acknowledged}
			}
			return origins, err
		},
		open: func(ctx context.Context) (n int, err error) { return n, ask(ctx, http.MethodGet, "/subscriptions", &n) },
	})
}
