package messages

import (
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// checkString reports what is wrong with a string that PostgreSQL will hold: bytes within bounds, and no NUL.
func checkString(field, value string, limit int) error {
	switch {
	case value == "":
		return Invalid(field, "is missing or empty; it must have 1 to %d bytes", limit)
	case len(value) > limit:
		return Invalid(field, "has %d bytes; it must have 1 to %d", len(value), limit)
	case strings.IndexByte(value, 0) >= 0:
		return Invalid(field, "must not hold the character U+0000")
	}
	return nil
}

func checkName(field, name string) error { return checkString(field, name, MaxNameBytes) }

// checkOptional is checkString for what may be absent, which is the same as empty.
func checkOptional(field, value string, limit int) error {
	if value == "" {
		return nil
	}
	return checkString(field, value, limit)
}

// checkNaming checks a name and a description, those that are given.
func checkNaming(name, description *string) error {
	if name != nil {
		if err := checkName("name", *name); err != nil {
			return err
		}
	}
	switch {
	case description == nil:
	case len(*description) > MaxDescriptionBytes:
		return TooLarge("description", MaxDescriptionBytes, fmt.Sprintf("the text has %d bytes", len(*description)))
	case strings.IndexByte(*description, 0) >= 0:
		return Invalid("description", "must not hold the character U+0000")
	}
	return nil
}

// checkIDOrName wants exactly one of them.
func checkIDOrName(idField, id, name string) error {
	if (id == "") == (name == "") {
		return Invalid(idField, "exactly one of %s and name must be given", idField)
	}
	if err := checkOptional(idField, id, MaxNameBytes); err != nil {
		return err
	}
	return checkOptional("name", name, MaxNameBytes)
}

func checkIfVersion(version *int64) error {
	if version != nil && *version < 1 {
		return Invalid("if_version", "must be 1 or more: that is the version of what is new")
	}
	return nil
}

// given reports whether an optional JSON field is there; null is the same as absent.
func given(value jsontext.Value) bool { return len(value) > 0 && value.Kind() != 'n' }

// namedField is a field of an update, and whether the update names it.
type namedField struct {
	name  string
	given bool
}

func namesOf(fields []namedField) []string {
	var names []string
	for _, field := range fields {
		if field.given {
			names = append(names, field.name)
		}
	}
	return names
}

func checkKey(field, key string) error { return checkString(field, key, MaxKeyBytes) }

func checkKeys(field string, keys []string) error {
	if err := checkCount(field, len(keys), MaxBatchKeys); err != nil {
		return err
	}
	for i, key := range keys {
		if err := checkKey(fmt.Sprintf("%s[%d]", field, i), key); err != nil {
			return err
		}
	}
	return nil
}

func checkTags(field string, tags []string) error {
	if len(tags) > MaxTags {
		return Invalid(field, "has %d tags; it may have %d at most", len(tags), MaxTags)
	}
	for i, tag := range tags {
		if err := checkString(fmt.Sprintf("%s[%d]", field, i), tag, MaxTagBytes); err != nil {
			return err
		}
	}
	return nil
}

// checkUUID allows an absent id.
func checkUUID(field, id string) error {
	if id == "" {
		return nil
	}
	if len(id) != 36 || uuid.Validate(id) != nil {
		return Invalid(field, "is no UUID")
	}
	return nil
}

func checkSomeTags(field string, tags []string) error {
	if err := checkCount(field, len(tags), MaxTags); err != nil {
		return err
	}
	return checkTags(field, tags)
}

func checkCount(field string, n, limit int) error {
	if n < 1 || n > limit {
		return Invalid(field, "has %d elements; it must have 1 to %d", n, limit)
	}
	return nil
}

func checkTTL(field string, seconds *float64) error {
	if seconds == nil {
		return nil
	}
	if !(*seconds > 0) || *seconds > MaxTTL.Seconds() {
		return Invalid(field, "must be more than 0 and at most %.0f (10 years)", MaxTTL.Seconds())
	}
	return nil
}

// TTL returns the time to live that a request names in seconds, or the default. Less than PostgreSQL's resolution of
// one microsecond counts as one.
func TTL(seconds *float64, otherwise time.Duration) time.Duration {
	if seconds == nil {
		return otherwise
	}
	return max(time.Microsecond, time.Duration(*seconds*float64(time.Second)))
}
