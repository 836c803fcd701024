// Package config reads the settings of all programs from the environment. The names are the same in every program, and
// nothing else in Morello looks at the environment.
package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
)

// Version of Morello, semantic. Discovery shows it.
const Version = "0.1.0"

const prefix = "MORELLO_"

// Config holds every setting. The tag doc says what a setting means. Of those with the tag secret nothing is printed, or,
// if it is "url", what of a URL is no secret.
type Config struct {
	DatabaseURL        string `env:"DATABASE_URL" secret:"url" doc:"PostgreSQL, as postgres://user:password@host:port/database"`
	MigrateDatabaseURL string `env:"MIGRATE_DATABASE_URL" secret:"url" doc:"PostgreSQL for migrations, as a user who may create tables; the same when absent"`
	NATSURL            string `env:"NATS_URL" envDefault:"nats://127.0.0.1:4222" secret:"url" doc:"NATS servers, separated by commas"`
	NATSCreds          string `env:"NATS_CREDS" doc:"path of a NATS credentials file"`
	NATSCA             string `env:"NATS_CA" doc:"path of the root certificate of the NATS servers"`
	HTTPAddr           string `env:"HTTP_ADDR" envDefault:"127.0.0.1:8080" doc:"address of the gateway; beyond loopback it needs MORELLO_HTTP_TOKEN"`
	HTTPToken          string `env:"HTTP_TOKEN" secret:"true" doc:"bearer token of the gateway"`
	HTTPOperatorToken  string `env:"HTTP_OPERATOR_TOKEN" secret:"true" doc:"bearer token for the operator's tenant _admin; without it the gateway refuses _admin"`
	HealthAddr         string `env:"HEALTH_ADDR" envDefault:"127.0.0.1:8081" doc:"address of /livez and /readyz; off for none"`
	PoolCeiling        int    `env:"POOL_CEILING" doc:"PostgreSQL connections for requests, at most, of one worker; from cores and memory when absent"`
	MaxInFlight        int    `env:"MAX_IN_FLIGHT" envDefault:"1024" doc:"requests at work in one worker, at most; half of them for one tenant"`
	CacheDurable       bool   `env:"CACHE_DURABLE" envDefault:"false" doc:"true: the cache outlives a crash of PostgreSQL, and sets wait for the disk; takes effect with morello migrate up"`
	CacheMaxBytes      int64  `env:"CACHE_MAX_BYTES" envDefault:"0" doc:"bytes of cache entries, of all tenants, over which the oldest are evicted; 0 for no bound"`
	TextConfig         string `env:"TEXT_CONFIG" envDefault:"simple" doc:"text configuration of PostgreSQL by which snapshot.search tells words apart, such as simple or english; takes effect with morello migrate up"`
	AuditRetentionDays int    `env:"AUDIT_RETENTION_DAYS" envDefault:"0" doc:"days after which entries of the audit trail are deleted; 0 to keep them for ever"`
	LogLevel           string `env:"LOG_LEVEL" envDefault:"info" doc:"debug, info, warn or error"`
	LogFormat          string `env:"LOG_FORMAT" envDefault:"text" doc:"text or json"`

	// JobEvery is the period of each periodic job, by kind.
	JobEvery map[string]time.Duration `env:"-"`

	sources map[string]string
	unknown []string
}

// defaultJobEvery lists the periodic jobs: MORELLO_JOB_<KIND>_EVERY changes the period of one.
var defaultJobEvery = map[string]time.Duration{
	"cache_cleanup":         time.Minute,
	"session_cleanup":       10 * time.Minute,
	"idempotency_cleanup":   time.Hour,
	"partition_maintenance": 24 * time.Hour,
	"transfer_cleanup":      10 * time.Minute,
	"snapshot_cleanup":      24 * time.Hour,
	"chunk_sweep":           time.Hour,
}

// minJobEvery is the shortest period of a periodic job.
const minJobEvery = time.Second

// Load reads the environment of the process and checks every setting; the error names all that are wrong.
func Load() (Config, error) { return load(env.ToMap(os.Environ())) }

func load(environment map[string]string) (Config, error) {
	c := Config{sources: map[string]string{}}
	for name, value := range environment {
		if value == "" {
			delete(environment, name) // an empty variable is an absent one, as compose files make them
		}
	}
	options := env.Options{Prefix: prefix, Environment: environment, OnSet: func(name string, _ any, isDefault bool) {
		if _, given := environment[name]; given && !isDefault {
			c.sources[name] = "environment"
		}
	}}
	errs := []error{nameVariables(env.ParseWithOptions(&c, options))}
	errs = append(errs, c.readJobs(environment))
	c.derive(environment)
	errs = append(errs, c.check())
	c.findUnknown(environment)
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	return c, nil
}

// nameVariables rewrites the errors of the library, which name fields, and may quote what they could not read.
func nameVariables(err error) error {
	var all env.AggregateError
	if !errors.As(err, &all) {
		return err
	}
	var errs []error
	for _, err := range all.Errors {
		var unread env.ParseError
		if errors.As(err, &unread) {
			field, _ := reflect.TypeFor[Config]().FieldByName(unread.Name)
			err = fmt.Errorf("%s%s cannot be read as %s", prefix, field.Tag.Get("env"), unread.Type)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *Config) readJobs(environment map[string]string) error {
	c.JobEvery = maps.Clone(defaultJobEvery)
	var errs []error
	for kind := range c.JobEvery {
		name := jobVariable(kind)
		text, given := environment[name]
		if !given {
			continue
		}
		every, err := time.ParseDuration(text)
		if err != nil || every < minJobEvery {
			errs = append(errs, fmt.Errorf("%s must be a duration of at least %s, such as 90s or 10m", name, minJobEvery))
		}
		c.JobEvery[kind] = every
		c.sources[name] = "environment"
	}
	return errors.Join(errs...)
}

func jobVariable(kind string) string { return prefix + "JOB_" + strings.ToUpper(kind) + "_EVERY" }

// derive fills in what follows from other settings or from the machine.
func (c *Config) derive(environment map[string]string) {
	if c.DatabaseURL == "" {
		c.DatabaseURL = legacyURL(environment)
		c.sources[prefix+"DATABASE_URL"] = "POSTGRES_HOST, _PORT, _DB, _USER, _PASSWORD"
		if c.DatabaseURL == "" {
			c.DatabaseURL = "postgres://127.0.0.1:5432/morello"
			delete(c.sources, prefix+"DATABASE_URL")
		}
	}
	if c.MigrateDatabaseURL == "" {
		c.MigrateDatabaseURL = c.DatabaseURL
		c.sources[prefix+"MIGRATE_DATABASE_URL"] = "MORELLO_DATABASE_URL"
	}
	if _, given := environment[prefix+"POOL_CEILING"]; !given {
		c.PoolCeiling = defaultPoolCeiling()
		c.sources[prefix+"POOL_CEILING"] = "cores and memory"
	}
}

// legacyURL understands the names that the system before Morello used.
func legacyURL(environment map[string]string) string {
	host, given := environment["POSTGRES_HOST"]
	if !given {
		return ""
	}
	port := orDefault(environment["POSTGRES_PORT"], "5432")
	u := url.URL{Scheme: "postgres", Host: net.JoinHostPort(host, port), Path: "/" + orDefault(environment["POSTGRES_DB"], "postgres")}
	if strings.HasPrefix(host, "/") { // the folder of a Unix socket
		u.Host, u.RawQuery = "", url.Values{"host": {host}, "port": {port}}.Encode()
	}
	user := orDefault(environment["POSTGRES_USER"], "postgres")
	u.User = url.User(user)
	if password := environment["POSTGRES_PASSWORD"]; password != "" {
		u.User = url.UserPassword(user, password)
	}
	return u.String()
}

func orDefault(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

func (c *Config) check() error {
	var errs []error
	if c.PoolCeiling < 1 || c.PoolCeiling > 1000 {
		errs = append(errs, errors.New("MORELLO_POOL_CEILING must be 1 to 1000"))
	}
	if c.MaxInFlight < 1 || c.MaxInFlight > 100_000 {
		errs = append(errs, errors.New("MORELLO_MAX_IN_FLIGHT must be 1 to 100000"))
	}
	if c.CacheMaxBytes < 0 || c.CacheMaxBytes > 0 && c.CacheMaxBytes < minCacheMaxBytes {
		errs = append(errs, fmt.Errorf("MORELLO_CACHE_MAX_BYTES must be 0 for no bound, or at least %d (16 MiB)", minCacheMaxBytes))
	}
	if c.AuditRetentionDays < 0 || c.AuditRetentionDays > maxAuditRetentionDays {
		errs = append(errs, fmt.Errorf("MORELLO_AUDIT_RETENTION_DAYS must be 0 to keep entries for ever, or 1 to %d", maxAuditRetentionDays))
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		errs = append(errs, errors.New("MORELLO_LOG_LEVEL must be debug, info, warn or error"))
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		errs = append(errs, errors.New("MORELLO_LOG_FORMAT must be text or json"))
	}
	if _, _, err := net.SplitHostPort(c.HTTPAddr); err != nil {
		errs = append(errs, errors.New("MORELLO_HTTP_ADDR must be host:port"))
	}
	if _, _, err := net.SplitHostPort(c.HealthAddr); err != nil && c.HealthAddr != HealthOff {
		errs = append(errs, errors.New("MORELLO_HEALTH_ADDR must be host:port, or off"))
	}
	return errors.Join(errs...)
}

// minCacheMaxBytes is a cache that holds a few of the largest values.
const minCacheMaxBytes = 16 << 20

// maxAuditRetentionDays is a hundred years.
const maxAuditRetentionDays = 36_500

// HealthOff as HealthAddr serves no health endpoints.
const HealthOff = "off"

// findUnknown notes variables with our prefix that nothing reads: most are misspelled.
func (c *Config) findUnknown(environment map[string]string) {
	known := map[string]bool{}
	for _, setting := range c.Settings() {
		known[setting.Name] = true
	}
	for name := range environment {
		if strings.HasPrefix(name, prefix) && !known[name] {
			c.unknown = append(c.unknown, name)
		}
	}
	slices.Sort(c.unknown)
}

// Unknown returns the variables that begin with MORELLO_ and mean nothing to this version.
func (c Config) Unknown() []string { return c.unknown }
