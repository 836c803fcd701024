package config

import (
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// Setting is one setting as it is in force.
type Setting struct {
	// Name of the environment variable.
	Name string
	// Value in force, without passwords and tokens.
	Value string
	// Source says why: default, environment, or what it was derived from.
	Source string
	// Doc says what it means.
	Doc string
}

// Settings lists all settings as they are in force.
func (c Config) Settings() []Setting {
	var list []Setting
	value := reflect.ValueOf(c)
	for i := range value.NumField() {
		field := value.Type().Field(i)
		name, named := field.Tag.Lookup("env")
		if !named || name == "-" {
			continue
		}
		setting := Setting{Name: prefix + name, Value: fmt.Sprint(value.Field(i).Interface()), Doc: field.Tag.Get("doc")}
		if field.Tag.Get("secret") != "" {
			setting.Value = hideSecrets(setting.Value)
		}
		list = append(list, c.withSource(setting))
	}
	for _, kind := range slices.Sorted(maps.Keys(c.JobEvery)) {
		setting := Setting{Name: jobVariable(kind), Value: c.JobEvery[kind].String(), Doc: "period of the job " + kind}
		list = append(list, c.withSource(setting))
	}
	return list
}

func (c Config) withSource(s Setting) Setting {
	s.Source = orDefault(c.sources[s.Name], "default")
	return s
}

const hidden = "(hidden)"

// hideSecrets keeps of a list of URLs what is no secret, and nothing of anything else.
func hideSecrets(text string) string {
	if text == "" {
		return ""
	}
	parts := strings.Split(text, ",")
	for i, part := range parts {
		u, err := url.Parse(part)
		if err != nil || u.Scheme == "" || u.Host == "" {
			return hidden
		}
		if u.User != nil {
			u.User = url.User(u.User.Username())
		}
		u.RawQuery = "" // may hold password=…
		parts[i] = u.String()
	}
	return strings.Join(parts, ",")
}
