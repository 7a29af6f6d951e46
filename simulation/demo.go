package simulation

import "time"

// DemoText says what Demo plays, for the person who watches it.
const DemoText = `A network of 60 simulated probes in about 40 countries, in real time.
  at once     all probes register and send their first heartbeat within five seconds
  then        a measurement arrives every five seconds or so; some are anomalies, and some of
              those are confirmed when the server has fingerprints
  minute 1    probe 3 is switched off: DEGRADED five minutes after its last heartbeat, OFFLINE
              after fifteen; it returns in minute 31
  minute 2    probe 7 begins to go up for 2 and down for 16 minutes: FLAPPING after its third
              change, about 38 minutes into the run
  minute 4    the uploads of probe 11 are blocked: its queue grows while its heartbeats arrive
Stop it with Ctrl-C.`

// Demo is what "make run" plays: see DemoText. The caller adds the addresses, the token and the state file.
func Demo() Config {
	one := func(kind FaultKind, index int, f Fault) Fault {
		f.Kind, f.Probe = kind, &index
		return f
	}
	return Config{
		Probes:         60,
		Seed:           1,
		HeartbeatEvery: time.Minute,
		MeasureEvery:   5 * time.Minute,
		Faults: []Fault{
			one(Silence, 3, Fault{At: time.Minute, For: 30 * time.Minute}),
			one(Flapping, 7, Fault{At: 2 * time.Minute, Up: 2 * time.Minute, Down: 16 * time.Minute}),
			one(BlockedUploads, 11, Fault{At: 4 * time.Minute, For: 40 * time.Minute, Grow: 4}),
		},
	}
}
