package service

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/fault"
)

// rememberFor is how long an idempotency key gives the same answer. Our decision: long enough
// for a probe that was switched off in the middle, short enough to keep a lost key harmless.
const rememberFor = 24 * time.Hour

// A call is one mutation with an idempotency key, by whom and with what input.
type call struct {
	lookup  [32]byte // what the answer is stored under
	sealing [32]byte // what it is sealed with; never stored
	request [32]byte
	since   time.Time
}

// newCall returns nil without a key. It fails with INVALID when the key is too long.
func newCall(p access.Principal, mutation, key string, request any, now time.Time) (*call, error) {
	if key == "" {
		return nil, nil
	}
	if err := CheckKey(key); err != nil {
		return nil, err
	}
	who := string(p.Role) + "|" + string(p.ProbeID) + "|" + strconv.FormatInt(p.TokenID, 10) + "|" + mutation + "|" + key
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	return &call{
		lookup:  sha256.Sum256([]byte("lookup|" + who)),
		sealing: sha256.Sum256([]byte("seal|" + who)),
		request: sha256.Sum256(body), since: now.Add(-rememberFor),
	}, nil
}

// CheckKey fails with INVALID when an idempotency key is too long. An empty one is none.
func CheckKey(key string) error {
	if utf8.RuneCountInString(key) > 128 || !utf8.ValidString(key) {
		return fault.Field("input.idempotencyKey", "An idempotency key has 1 to 128 characters.")
	}
	return nil
}

// recall reads the answer that the call got before into answer, and reports whether there was
// one. It fails with CONFLICT when the key was used with another input.
func (c *call) recall(ctx context.Context, d *db.DB, answer any) (bool, error) {
	if c == nil {
		return false, nil
	}
	a, ok, err := d.Answer(ctx, c.lookup, c.since)
	if err != nil || !ok {
		return false, err
	}
	if err := c.open(a, answer); err != nil {
		return false, err
	}
	return true, nil
}

// open reads what was answered. It fails with CONFLICT when that was to another input.
func (c *call) open(a db.Answer, answer any) error {
	if a.Request != c.request {
		return fault.New(fault.Conflict, "This idempotency key was used with another input. Use a new key.").
			At("input.idempotencyKey")
	}
	aead, err := c.aead()
	if err != nil {
		return err
	}
	n := aead.NonceSize()
	plain, err := aead.Open(nil, a.Sealed[:n], a.Sealed[n:], nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(plain, answer)
}

// remember stores the answer with the transaction that makes it true.
func (c *call) remember(ctx context.Context, tx *db.Tx, answer any) error {
	if c == nil {
		return nil
	}
	a, err := c.seal(answer)
	if err != nil {
		return err
	}
	return tx.InsertAnswer(ctx, c.lookup, a, c.since)
}

// seal makes of an answer what is stored.
func (c *call) seal(answer any) (db.Answer, error) {
	plain, err := json.Marshal(answer)
	if err != nil {
		return db.Answer{}, err
	}
	aead, err := c.aead()
	if err != nil {
		return db.Answer{}, err
	}
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return db.Answer{Request: c.request, Sealed: aead.Seal(nonce, nonce, plain, nil)}, nil
}

func (c *call) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(c.sealing[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// once runs do in a transaction, or gives back what it answered to the same call before. Two
// calls at the same time have one effect: the later one finds the answer of the other.
func once[T any](ctx context.Context, s *Service, c *call, do func(*db.Tx) (T, error)) (answer T, err error) {
	if ok, err := c.recall(ctx, s.db, &answer); ok || err != nil {
		return answer, err
	}
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		if answer, err = do(tx); err != nil {
			return err
		}
		return c.remember(ctx, tx, answer)
	})
	if c != nil && fault.Is(err, fault.Conflict) {
		var other T
		if ok, e := c.recall(ctx, s.db, &other); ok && e == nil {
			return other, nil
		}
	}
	return answer, err
}

// ForgetAnswers drops what idempotency keys no longer recall, and returns how many.
func (s *Service) ForgetAnswers(ctx context.Context) (n int64, err error) {
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		n, err = tx.DeleteAnswers(ctx, tx.Now.Add(-rememberFor))
		return err
	})
	return n, err
}
