package simulation

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/openvantage/vantage/probe"
)

// A credential is what a probe must remember to be the same one in the next run. The Key is kept from before
// the registration on, so that one whose answer was lost is asked for again.
type credential struct {
	Key    string   `json:"key"`
	ID     probe.ID `json:"id,omitempty"`
	Secret string   `json:"secret,omitempty"`
}

// A state is the credentials of a run's probes by index, kept in a file if it has a path.
type state struct {
	mu      sync.Mutex
	path    string
	savedAt time.Time
	content struct {
		BaseURL string       `json:"baseUrl"`
		Seed    uint64       `json:"seed"`
		Probes  []credential `json:"probes"`
	}
}

// saveEvery bounds how often the whole file is written while many probes register.
const saveEvery = time.Second

// openState reads the state of an earlier run, or begins one. It fails when the file is of another server
// or seed: its probes are not ours.
func openState(path, baseURL string, seed uint64, probes int) (*state, error) {
	s := &state{path: path}
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil {
			if err := json.Unmarshal(b, &s.content); err != nil {
				return nil, fmt.Errorf("%s is not the state of a simulation: %w", path, err)
			}
			if c := s.content; c.BaseURL != baseURL || c.Seed != seed {
				return nil, fmt.Errorf("%s is the state of another simulation: of %s with seed %d", path, c.BaseURL, c.Seed)
			}
		}
	}
	s.content.BaseURL, s.content.Seed = baseURL, seed
	for len(s.content.Probes) < probes {
		s.content.Probes = append(s.content.Probes, credential{Key: rand.Text()})
	}
	return s, s.save()
}

func (s *state) credential(index int) credential {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.content.Probes[index]
}

// keep remembers a credential, in the file within saveEvery of a later call or with the last save.
func (s *state) keep(index int, c credential) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.content.Probes[index] = c
	if time.Since(s.savedAt) < saveEvery {
		return nil
	}
	return s.saveLocked()
}

func (s *state) save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saveLocked()
}

// saveLocked replaces the file at once, so that a kill leaves the old one or the new one.
func (s *state) saveLocked() error {
	if s.path == "" {
		return nil
	}
	s.savedAt = time.Now()
	b, err := json.MarshalIndent(s.content, "", " ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".*") // readable for us alone
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), s.path)
}
