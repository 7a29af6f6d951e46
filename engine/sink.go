package engine

import (
	"time"

	"github.com/vektah/gqlparser/v2/gqlerror"
)

// A Position is a place in an ordered log: everything up to Seq has been seen. At is when the
// item there was recorded, if anybody knows; it helps a reader of a stored log to begin.
type Position struct {
	Seq int64
	At  time.Time
}

// A message is one event as subscribers get it: encoded once, written to many.
type message struct {
	// payload is the response, `{"data":…}`. It is shared and must not be changed.
	payload []byte
	at      Position
	// key names what the event is the state of; empty when it is no state.
	key string
	// value is what was executed, to do it again in other words.
	value any
}

// A sink is where the messages of one subscription go: an operation on a websocket, or an
// event stream. Its methods may be called at the same time and wait for nobody.
type sink interface {
	// send takes all messages or none. False means that the reader has not kept up: then the sink calls
	// subscription.drained once there is room again.
	send([]*message) bool
	// end tells the client that the subscription is over: completed, or failed with errors.
	end(gqlerror.List)
	// slow gives up a reader who cannot keep up and whose messages must not be left out.
	slow()
}
