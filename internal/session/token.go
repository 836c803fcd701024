package session

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
)

// tokenBytes is 256 bits: what cannot be guessed needs no slow hash.
const tokenBytes = 32

// newToken returns a new secret, and the hash that is kept of it.
func newToken() (token string, hash []byte) {
	secret := make([]byte, tokenBytes)
	_, _ = rand.Read(secret) // never fails: it ends the process instead
	token = base64.RawURLEncoding.EncodeToString(secret)
	return token, hashToken(token)
}

// hashToken returns the hash under which a token is looked up. It is computed of whatever was sent, so that what is malformed
// takes the way of what is unknown.
func hashToken(token string) []byte {
	hash := sha256.Sum256([]byte(token))
	return hash[:]
}
