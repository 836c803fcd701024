package messages

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// given reports whether an optional JSON field is there; null means that it is not.
func given(value jsontext.Value) bool { return len(value) > 0 && value.Kind() != 'n' }

// checkObject reports what is wrong with an optional object that PostgreSQL will hold as jsonb: it is no object, holds what
// jsonb cannot (U+0000, lone surrogates, numbers beyond numeric), or is over the limit of bytes, without white space and
// with its numbers written out as jsonb writes them (1e3 as 1000).
func checkObject(field string, value jsontext.Value, limit int) error {
	if !given(value) {
		return nil
	}
	if value.Kind() != '{' {
		return Invalid(field, "must be an object")
	}
	compact, err := Compact(value)
	if err != nil {
		return err
	}
	grown, err := checkTokens(field, compact)
	if err != nil {
		return err
	}
	if size := len(compact) + grown; size > limit {
		return TooLarge(field, limit, fmt.Sprintf("it has %d bytes", size))
	}
	return nil
}

// checkTokens reports the first token that jsonb cannot hold, and by how many bytes its numbers grow.
func checkTokens(field string, value jsontext.Value) (grown int, err error) {
	decoder := jsontext.NewDecoder(bytes.NewReader(value), jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true))
	for {
		switch decoder.PeekKind() {
		case '"':
			raw, err := decoder.ReadValue()
			if err != nil {
				return 0, decodeError(err)
			}
			if err := checkStorable(field, raw); err != nil {
				return 0, err
			}
		case '0':
			raw, err := decoder.ReadValue()
			if err != nil {
				return 0, decodeError(err)
			}
			length, ok := numericLength(string(raw))
			if !ok {
				return 0, Invalid(field, "holds a number beyond 131072 digits before or 16383 after the point")
			}
			grown += max(0, length-len(raw))
		default:
			if _, err := decoder.ReadToken(); err != nil {
				return grown, nil // the end: the value was read as JSON before
			}
		}
	}
}

// checkStorable reports a string that PostgreSQL, whose text is UTF-8 without NUL, cannot hold.
func checkStorable(field string, raw jsontext.Value) error {
	if !bytes.Contains(raw, []byte(`\u`)) {
		return nil
	}
	text, err := jsontext.AppendUnquote(nil, raw)
	switch {
	case err != nil:
		return Invalid(field, "must not hold a lone surrogate")
	case bytes.IndexByte(text, 0) >= 0:
		return Invalid(field, "must not hold the character U+0000")
	}
	return nil
}

// The bounds of PostgreSQL's numeric: https://www.postgresql.org/docs/current/datatype-numeric.html
const (
	maxNumericDigits = 131072
	maxNumericScale  = 16383
)

// numericLength returns how long a JSON number is as PostgreSQL's numeric writes it, or a little more, and whether it has a
// place for it at all.
func numericLength(number string) (length int, ok bool) {
	mantissa, exponent := number, 0
	if at := strings.IndexAny(number, "eE"); at >= 0 {
		parsed, err := strconv.Atoi(number[at+1:])
		if err != nil || parsed > 2*maxNumericDigits || parsed < -2*maxNumericDigits {
			return 0, false
		}
		mantissa, exponent = number[:at], parsed
	}
	plain := strings.TrimPrefix(mantissa, "-")
	whole, fraction, _ := strings.Cut(plain, ".")
	digits, scale := max(1, len(whole)+exponent), max(0, len(fraction)-exponent)
	length = len(mantissa) - len(plain) + digits
	if scale > 0 {
		length += 1 + scale
	}
	return length, digits <= maxNumericDigits && scale <= maxNumericScale
}
