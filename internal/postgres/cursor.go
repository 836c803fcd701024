package postgres

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/ai-cherry/morello/messages"
)

// cursorMark is how many bytes of a cursor tie it to its list.
const cursorMark = 8

// EncodeCursor writes the place at which the next page of a list begins. The list names what the cursor is valid for:
// tenant, operation and filters.
func EncodeCursor(list, place any) (string, error) {
	mark, err := listMark(list)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(place)
	if err != nil {
		return "", fmt.Errorf("encoding a cursor: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(append(mark, text...)), nil
}

// DecodeCursor reads a cursor into place. One that is garbage, or of another list, is invalid. An empty one leaves place
// as it is: the list begins at its beginning.
func DecodeCursor(cursor string, list, place any) error {
	if cursor == "" {
		return nil
	}
	mark, err := listMark(list)
	if err != nil {
		return err
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(text) < cursorMark || !bytes.Equal(text[:cursorMark], mark) || json.Unmarshal(text[cursorMark:], place) != nil {
		return messages.Invalid("cursor", "is not a cursor of this list")
	}
	return nil
}

func listMark(list any) ([]byte, error) {
	text, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("encoding a cursor: %w", err)
	}
	sum := sha256.Sum256(text)
	return sum[:cursorMark:cursorMark], nil
}
