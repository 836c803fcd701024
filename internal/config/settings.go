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
		switch field.Tag.Get("secret") {
		case "url":
			setting.Value = HideSecrets(setting.Value)
		case "true":
			setting.Value = hide(setting.Value)
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

func hide(text string) string {
	if text == "" {
		return ""
	}
	return hidden
}

// schemes of the URLs of PostgreSQL and NATS.
var schemes = []string{"postgres", "postgresql", "nats", "tls", "ws", "wss"}

// HideSecrets keeps of a list of URLs what is no secret, to be printed, and nothing of anything else.
func HideSecrets(text string) string {
	parts := strings.Split(text, ",")
	for i, part := range parts {
		u, err := url.Parse(part)
		if err != nil || !slices.Contains(schemes, u.Scheme) || u.Opaque != "" || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") {
			return hide(text) // an @ after the host is what is left of a password that was not escaped
		}
		parts[i] = withoutSecrets(u).String()
	}
	return strings.Join(parts, ",")
}

// withoutSecrets removes password, query (it may hold password=…), and what NATS takes for a token: a user without password.
func withoutSecrets(u *url.URL) *url.URL {
	visible := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	_, hasPassword := u.User.Password()
	switch {
	case u.User == nil:
	case hasPassword, strings.HasPrefix(u.Scheme, "postgres"):
		visible.User = url.User(u.User.Username())
	default:
		visible.User = url.User("xxxxx") // as url.URL.Redacted has it
	}
	return &visible
}
