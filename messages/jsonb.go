package messages

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// What PostgreSQL's type numeric holds, and so a number in jsonb:
// https://www.postgresql.org/docs/current/datatype-numeric.html
const (
	numericDigits = 131_072 // before the decimal point
	numericScale  = 16_383  // after it
	// maxExponent is beyond both; what follows it is refused unread.
	maxExponent = 1_000_000
)

// checkJSONB reports a value that jsonb cannot hold, or that is over its limit: as it was sent, white space included, and
// as PostgreSQL writes it, where 1e100000 has 100001 digits. An absent value is fine.
func checkJSONB(field string, value jsontext.Value, limit int) error {
	if len(value) > limit {
		return TooLarge(field, limit, fmt.Sprintf("the value has %d bytes", len(value)))
	}
	size := len(value)
	decoder := jsontext.NewDecoder(bytes.NewBuffer(value), jsontext.AllowDuplicateNames(true),
		jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true))
	for {
		kind := decoder.PeekKind()
		if kind != '"' && kind != '0' {
			if _, err := decoder.ReadToken(); err != nil {
				return nil // the end: the value was read before
			}
			continue
		}
		raw, err := decoder.ReadValue()
		if err != nil {
			return nil
		}
		written, why := jsonbSize(raw)
		if why != "" {
			return Invalid(joinPath(field, decoder.StackPointer()), "%s", why)
		}
		if size += max(0, written-len(raw)); size > limit {
			return TooLarge(field, limit, "the value is too large with its numbers written out")
		}
	}
}

// checkObject is checkJSONB for what must be an object. null means absent.
func checkObject(field string, value jsontext.Value, limit int) error {
	if value != nil && value.Kind() != '{' && value.Kind() != 'n' {
		return Invalid(field, "must be an object")
	}
	return checkJSONB(field, value, limit)
}

// jsonbSize returns how many bytes PostgreSQL writes for a string or a number, at most, or why it cannot hold it.
func jsonbSize(raw jsontext.Value) (size int, why string) {
	if raw.Kind() == '0' {
		size, held := numericSize(string(raw))
		if !held {
			return 0, fmt.Sprintf("must not hold a number of more than %d digits before and %d after the decimal point", numericDigits, numericScale)
		}
		return size, ""
	}
	if bytes.Contains(raw, []byte(`\u`)) {
		text, err := jsontext.AppendUnquote(nil, raw)
		switch {
		case err != nil:
			return 0, "must not hold a lone surrogate"
		case bytes.IndexByte(text, 0) >= 0:
			return 0, "must not hold the character U+0000"
		}
	}
	return len(raw), ""
}

// numericSize returns how many bytes numeric writes for a number of JSON, and whether it can hold it.
func numericSize(number string) (size int, held bool) {
	mantissa, power, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(number, "-")), "e")
	exponent := 0
	if power != "" {
		var err error
		if exponent, err = strconv.Atoi(power); err != nil || max(exponent, -exponent) > maxExponent {
			return 0, false
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	before, scale := 0, max(0, len(fraction)-exponent)
	if digits := strings.TrimLeft(whole+fraction, "0"); digits != "" {
		before = len(digits) - len(fraction) + exponent
	}
	size = max(before, 1) + scale
	if number[0] == '-' {
		size++
	}
	if scale > 0 {
		size++ // the point
	}
	return size, before <= numericDigits && scale <= numericScale
}

// joinPath writes the path of a part of a field.
func joinPath(field string, pointer jsontext.Pointer) string {
	path := fieldPath(pointer)
	if path != "" && path[0] != '[' {
		path = "." + path
	}
	return limitField(strings.ReplaceAll(field+path, "\x00", "\uFFFD"))
}
