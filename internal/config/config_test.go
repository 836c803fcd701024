package config

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func setting(t *testing.T, c Config, name string) Setting {
	t.Helper()
	for _, s := range c.Settings() {
		if s.Name == name {
			return s
		}
	}
	require.FailNow(t, "no setting "+name)
	return Setting{}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c, err := load(map[string]string{"HOME": "/root"})
	require.NoError(t, err)
	require.Equal(t, "postgres://127.0.0.1:5432/morello", c.DatabaseURL)
	require.Equal(t, c.DatabaseURL, c.MigrateDatabaseURL)
	require.Equal(t, "nats://127.0.0.1:4222", c.NATSURL)
	require.Empty(t, c.NATSCreds)
	require.Empty(t, c.NATSCA)
	require.Equal(t, "127.0.0.1:8080", c.HTTPAddr)
	require.Empty(t, c.HTTPToken)
	require.Empty(t, c.HTTPOperatorToken)
	require.Equal(t, "127.0.0.1:8081", c.HealthAddr)
	require.Equal(t, 1024, c.MaxInFlight)
	require.GreaterOrEqual(t, c.PoolCeiling, minPoolCeiling)
	require.LessOrEqual(t, c.PoolCeiling, maxPoolCeiling)
	require.False(t, c.CacheDurable)
	require.Zero(t, c.CacheMaxBytes)
	require.Zero(t, c.AuditRetentionDays)
	require.Equal(t, "info", c.LogLevel)
	require.Equal(t, "text", c.LogFormat)
	require.Equal(t, map[string]time.Duration{
		"cache_cleanup": time.Minute, "session_cleanup": 10 * time.Minute, "idempotency_cleanup": time.Hour, "partition_maintenance": 24 * time.Hour,
		"transfer_cleanup": 10 * time.Minute, "snapshot_cleanup": 24 * time.Hour, "chunk_sweep": time.Hour,
	}, c.JobEvery)
	require.Empty(t, c.Unknown())
	for _, s := range c.Settings() {
		want := "default"
		switch s.Name {
		case "MORELLO_MIGRATE_DATABASE_URL":
			want = "MORELLO_DATABASE_URL"
		case "MORELLO_POOL_CEILING":
			want = "cores and memory"
		}
		require.Equal(t, want, s.Source, s.Name)
		require.NotEmpty(t, s.Doc, s.Name)
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	given := map[string]string{
		"MORELLO_DATABASE_URL": "postgres://a@db/a", "MORELLO_MIGRATE_DATABASE_URL": "postgres://b@db/b",
		"MORELLO_NATS_URL": "nats://n1:4222,nats://n2:4222", "MORELLO_NATS_CREDS": "/run/creds", "MORELLO_NATS_CA": "/run/ca",
		"MORELLO_HTTP_ADDR": "[::1]:80", "MORELLO_HTTP_TOKEN": "one", "MORELLO_HTTP_OPERATOR_TOKEN": "two", "MORELLO_HEALTH_ADDR": "off",
		"MORELLO_POOL_CEILING": "7", "MORELLO_MAX_IN_FLIGHT": "8", "MORELLO_LOG_LEVEL": "debug", "MORELLO_LOG_FORMAT": "json",
		"MORELLO_CACHE_DURABLE": "true", "MORELLO_CACHE_MAX_BYTES": "16777216", "MORELLO_TEXT_CONFIG": "english",
		"MORELLO_JOB_CACHE_CLEANUP_EVERY": "90s", "MORELLO_JOB_IDEMPOTENCY_CLEANUP_EVERY": "1h30m", "MORELLO_JOB_SESSION_CLEANUP_EVERY": "5m",
		"MORELLO_JOB_PARTITION_MAINTENANCE_EVERY": "6h", "MORELLO_JOB_TRANSFER_CLEANUP_EVERY": "2m", "MORELLO_AUDIT_RETENTION_DAYS": "365",
		"MORELLO_JOB_SNAPSHOT_CLEANUP_EVERY": "12h", "MORELLO_JOB_CHUNK_SWEEP_EVERY": "20m",
	}
	names := len(given)
	c, err := load(given)
	require.NoError(t, err)
	require.Len(t, c.Settings(), names, "this test gives every setting")
	for _, s := range c.Settings() {
		require.Equal(t, "environment", s.Source, s.Name)
	}
	require.Empty(t, c.Unknown())
	require.Equal(t, "postgres://a@db/a", c.DatabaseURL)
	require.Equal(t, "postgres://b@db/b", c.MigrateDatabaseURL)
	require.Equal(t, "nats://n1:4222,nats://n2:4222", c.NATSURL)
	require.Equal(t, "/run/creds", c.NATSCreds)
	require.Equal(t, "/run/ca", c.NATSCA)
	require.Equal(t, "[::1]:80", c.HTTPAddr)
	require.Equal(t, "one", c.HTTPToken)
	require.Equal(t, "two", c.HTTPOperatorToken)
	require.Equal(t, HealthOff, c.HealthAddr)
	require.Equal(t, 7, c.PoolCeiling)
	require.Equal(t, 8, c.MaxInFlight)
	require.True(t, c.CacheDurable)
	require.EqualValues(t, 16<<20, c.CacheMaxBytes)
	require.Equal(t, "english", c.TextConfig)
	require.Equal(t, 365, c.AuditRetentionDays)
	require.Equal(t, "debug", c.LogLevel)
	require.Equal(t, "json", c.LogFormat)
	require.Equal(t, map[string]time.Duration{
		"cache_cleanup": 90 * time.Second, "session_cleanup": 5 * time.Minute, "idempotency_cleanup": 90 * time.Minute,
		"partition_maintenance": 6 * time.Hour, "transfer_cleanup": 2 * time.Minute,
		"snapshot_cleanup": 12 * time.Hour, "chunk_sweep": 20 * time.Minute,
	}, c.JobEvery)
}

// TestLoad reads the real environment. It cannot run in parallel: the environment is the process's.
func TestLoad(t *testing.T) {
	t.Setenv("MORELLO_POOL_CEILING", "5")
	t.Setenv("MORELLO_LOG_FORMAT", "")
	c, err := Load()
	require.NoError(t, err)
	require.Equal(t, 5, c.PoolCeiling)
	require.Equal(t, "text", c.LogFormat)
}

// TestEmptyVariables: compose files set variables that nobody gave a value; they count as absent.
func TestEmptyVariables(t *testing.T) {
	t.Parallel()
	empty := map[string]string{"POSTGRES_HOST": ""}
	defaults, err := load(map[string]string{})
	require.NoError(t, err)
	for _, s := range defaults.Settings() {
		empty[s.Name] = ""
	}
	empty["MORELLO_UNKNOWN"] = ""
	c, err := load(empty)
	require.NoError(t, err)
	require.Equal(t, defaults, c)
}

// TestLegacyNames: what comes out is what PostgreSQL's driver takes for the parts that went in.
func TestLegacyNames(t *testing.T) {
	t.Parallel()
	const awkward = `p@ss:w/o?r#d %41&=+,"'\é[]`
	for _, c := range []struct {
		name                           string
		environment                    map[string]string
		host, user, password, database string
		port                           uint16
	}{
		{
			name:        "all of them",
			environment: map[string]string{"POSTGRES_HOST": "db", "POSTGRES_PORT": "5433", "POSTGRES_DB": "app", "POSTGRES_USER": "u", "POSTGRES_PASSWORD": awkward},
			host:        "db", port: 5433, user: "u", password: awkward, database: "app",
		},
		{
			name:        "only the host",
			environment: map[string]string{"POSTGRES_HOST": "db", "POSTGRES_PORT": "", "POSTGRES_PASSWORD": ""},
			host:        "db", port: 5432, user: "postgres", database: "postgres",
		},
		{
			name:        "awkward names",
			environment: map[string]string{"POSTGRES_HOST": "::1", "POSTGRES_DB": "a b/c?d", "POSTGRES_USER": "u:@s"},
			host:        "::1", port: 5432, user: "u:@s", database: "a b/c?d",
		},
		{
			name:        "folder of a socket",
			environment: map[string]string{"POSTGRES_HOST": "/var/run/postgresql", "POSTGRES_PORT": "5433", "POSTGRES_PASSWORD": awkward},
			host:        "/var/run/postgresql", port: 5433, user: "postgres", password: awkward, database: "postgres",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := load(c.environment)
			require.NoError(t, err)
			parsed, err := pgx.ParseConfig(got.DatabaseURL)
			require.NoError(t, err)
			require.Equal(t, c.host, parsed.Host)
			require.Equal(t, c.port, parsed.Port)
			require.Equal(t, c.user, parsed.User)
			require.Equal(t, c.password, parsed.Password)
			require.Equal(t, c.database, parsed.Database)
			require.Equal(t, got.DatabaseURL, got.MigrateDatabaseURL)
			require.Equal(t, "POSTGRES_HOST, _PORT, _DB, _USER, _PASSWORD", setting(t, got, "MORELLO_DATABASE_URL").Source)
			require.Empty(t, got.Unknown())
		})
	}
}

func TestLegacyNamesGiveWay(t *testing.T) {
	t.Parallel()
	c, err := load(map[string]string{"MORELLO_DATABASE_URL": "postgres://new/x", "POSTGRES_HOST": "old"})
	require.NoError(t, err)
	require.Equal(t, "postgres://new/x", c.DatabaseURL)
	require.Equal(t, "environment", setting(t, c, "MORELLO_DATABASE_URL").Source)

	c, err = load(map[string]string{"POSTGRES_USER": "u", "POSTGRES_PASSWORD": "p"})
	require.NoError(t, err)
	require.Equal(t, "postgres://127.0.0.1:5432/morello", c.DatabaseURL, "without a host they are for something else")
}

// TestInvalidSettings: one error names all that is wrong, and quotes no value.
func TestInvalidSettings(t *testing.T) {
	t.Parallel()
	wrong := map[string]string{
		"MORELLO_HTTP_ADDR": "8080", "MORELLO_HEALTH_ADDR": "nowhere", "MORELLO_POOL_CEILING": "0", "MORELLO_MAX_IN_FLIGHT": "many-xyz",
		"MORELLO_LOG_LEVEL": "loud-xyz", "MORELLO_LOG_FORMAT": "xml-xyz",
		"MORELLO_JOB_CACHE_CLEANUP_EVERY": "60-xyz", "MORELLO_JOB_IDEMPOTENCY_CLEANUP_EVERY": "999ms",
	}
	_, err := load(wrong)
	require.ErrorContains(t, err, "configuration: ")
	for name := range wrong {
		require.ErrorContains(t, err, name)
	}
	require.NotContains(t, err.Error(), "xyz")
	require.NotContains(t, err.Error(), "PoolCeiling", "fields of ours mean nothing to an operator")
}

func TestBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, value string
		ok          bool
	}{
		{"MORELLO_POOL_CEILING", "1", true},
		{"MORELLO_POOL_CEILING", "1000", true},
		{"MORELLO_POOL_CEILING", "1001", false},
		{"MORELLO_POOL_CEILING", "-1", false},
		{"MORELLO_POOL_CEILING", "1.5", false},
		{"MORELLO_MAX_IN_FLIGHT", "0", false},
		{"MORELLO_MAX_IN_FLIGHT", "1", true},
		{"MORELLO_MAX_IN_FLIGHT", "100000", true},
		{"MORELLO_MAX_IN_FLIGHT", "100001", false},
		{"MORELLO_MAX_IN_FLIGHT", "99999999999999999999", false},
		{"MORELLO_CACHE_MAX_BYTES", "0", true},
		{"MORELLO_CACHE_MAX_BYTES", "16777215", false},
		{"MORELLO_CACHE_MAX_BYTES", "16777216", true},
		{"MORELLO_CACHE_MAX_BYTES", "-1", false},
		{"MORELLO_AUDIT_RETENTION_DAYS", "-1", false},
		{"MORELLO_AUDIT_RETENTION_DAYS", "1", true},
		{"MORELLO_AUDIT_RETENTION_DAYS", "36500", true},
		{"MORELLO_AUDIT_RETENTION_DAYS", "36501", false},
		{"MORELLO_LOG_LEVEL", "warn", true},
		{"MORELLO_LOG_LEVEL", "WARN", false},
		{"MORELLO_HTTP_ADDR", ":8080", true},
		{"MORELLO_HTTP_ADDR", "::1:8080", false},
		{"MORELLO_HTTP_ADDR", "off", false},
		{"MORELLO_HEALTH_ADDR", "127.0.0.1:0", true},
		{"MORELLO_JOB_CACHE_CLEANUP_EVERY", "1s", true},
		{"MORELLO_JOB_CACHE_CLEANUP_EVERY", "0", false},
		{"MORELLO_JOB_CACHE_CLEANUP_EVERY", "-1m", false},
	} {
		_, err := load(map[string]string{c.name: c.value})
		if c.ok {
			require.NoError(t, err, "%s=%s", c.name, c.value)
			continue
		}
		require.ErrorContains(t, err, c.name, "%s=%s", c.name, c.value)
	}
}

func TestUnknownVariables(t *testing.T) {
	t.Parallel()
	c, err := load(map[string]string{
		"MORELLO_NATS_URI": "nats://n", "MORELLO_JOB_CACHE_CLEANUP_EVERY": "2m", "MORELLO_JOB_COFFEE_EVERY": "1h",
		"MORELLO_database_url": "x", "MORELLOX": "1", "PGHOST": "db",
	})
	require.NoError(t, err)
	require.Equal(t, []string{"MORELLO_JOB_COFFEE_EVERY", "MORELLO_NATS_URI", "MORELLO_database_url"}, c.Unknown())
	require.Equal(t, "2m0s", setting(t, c, "MORELLO_JOB_CACHE_CLEANUP_EVERY").Value)
	require.Equal(t, "environment", setting(t, c, "MORELLO_JOB_CACHE_CLEANUP_EVERY").Source)
	require.Equal(t, "default", setting(t, c, "MORELLO_JOB_IDEMPOTENCY_CLEANUP_EVERY").Source)
}

// secrets are passwords that break a URL when they stand in it as they are: people do that.
var secrets = []string{
	"hunter2", "12#hunter2", "12?hunter2", "12/hunter2", "hunter2@12", "12,hunter2", "hun%ter2", "hun ter2", "1234", "12@34/56", "12@34?56", "12@34#56",
	"//hunter2", "&password=hunter2",
}

// TestSecretsAreHidden: whatever shape a secret has and stands in, no part of it is shown.
func TestSecretsAreHidden(t *testing.T) {
	t.Parallel()
	shapes := []string{
		"postgres://morello:%s@db:5432/morello", "postgresql://morello:%s@db/morello?sslmode=disable", "postgres://db/morello?user=u&password=%s",
		"postgres:///morello?host=/run&password=%s", "host=db user=u password=%s dbname=x", "password='%s' host=db", "postgres://u:%s@a:1,b:2/x",
		"postgres:u:%s@db", "u:%s@db/x", "//u:%s@db/x", "%s", "nats://%s@n1:4222", "nats://u:%s@n1:4222,nats://u:%s@n2:4222", "nats://n1,nats://u:%s@n2",
		"tls://%s@n1", "wss://u:%s@n1", "postgres://u:p@db/x#%s",
	}
	variables := []string{"MORELLO_DATABASE_URL", "MORELLO_MIGRATE_DATABASE_URL", "MORELLO_NATS_URL", "MORELLO_HTTP_TOKEN", "MORELLO_HTTP_OPERATOR_TOKEN"}
	for _, secret := range secrets {
		for _, shape := range shapes {
			for _, spelled := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
				value := strings.ReplaceAll(shape, "%s", spelled)
				environment := map[string]string{}
				for _, name := range variables {
					environment[name] = value
				}
				c, err := load(environment)
				require.NoError(t, err)
				for _, name := range variables {
					requireHidden(t, spelled, setting(t, c, name).Value, value)
				}
			}
		}
	}
}

// requireHidden looks for every part of the secret that a cut at a delimiter leaves.
func requireHidden(t *testing.T, secret, shown, value string) {
	t.Helper()
	for _, part := range append(strings.FieldsFunc(secret, func(r rune) bool { return strings.ContainsRune(`@:/?#,&=% `, r) }), secret) {
		if strings.Contains("password", part) || strings.Contains("db:5432 n1:4222", part) {
			continue // stands in the shapes themselves
		}
		require.NotContains(t, shown, part, "%q is shown as %q", value, shown)
	}
}

// TestWhatIsNoSecretIsShown: hiding everything would be safe, and no help.
func TestWhatIsNoSecretIsShown(t *testing.T) {
	t.Parallel()
	for value, shown := range map[string]string{
		"":                                      "",
		"postgres://127.0.0.1:5432/morello":     "postgres://127.0.0.1:5432/morello",
		"postgres://morello:pw@db:5432/morello": "postgres://morello@db:5432/morello",
		"postgres://morello@db/morello?sslmode=no": "postgres://morello@db/morello",
		"postgres:///morello?host=/run":            "postgres:///morello",
		"nats://n1:4222,nats://n2:4222":            "nats://n1:4222,nats://n2:4222",
		"nats://u:pw@n1:4222,tls://n2":             "nats://u@n1:4222,tls://n2",
		"nats://token@n1:4222":                     "nats://xxxxx@n1:4222",
		"host=db":                                  "(hidden)",
		"n1:4222":                                  "(hidden)",
		"secret://":                                "(hidden)",
	} {
		require.Equal(t, shown, HideSecrets(value), value)
	}
	c, err := load(map[string]string{"MORELLO_HTTP_TOKEN": "https://token"})
	require.NoError(t, err)
	require.Equal(t, "(hidden)", setting(t, c, "MORELLO_HTTP_TOKEN").Value, "a token is all secret, whatever it looks like")
	require.Empty(t, setting(t, c, "MORELLO_HTTP_OPERATOR_TOKEN").Value, "that there is none is no secret")
	require.Equal(t, "127.0.0.1:8080", setting(t, c, "MORELLO_HTTP_ADDR").Value)
}

func TestLogger(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		level, format string
		lines         int
		first         string
	}{
		{"debug", "text", 4, "level=DEBUG"},
		{"info", "text", 3, "level=INFO"},
		{"warn", "json", 2, `"level":"WARN"`},
		{"error", "json", 1, `"level":"ERROR"`},
	} {
		t.Run(c.level, func(t *testing.T) {
			t.Parallel()
			cfg, err := load(map[string]string{"MORELLO_LOG_LEVEL": c.level, "MORELLO_LOG_FORMAT": c.format})
			require.NoError(t, err)
			var out bytes.Buffer
			for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
				cfg.Logger(&out).Log(t.Context(), level, "said")
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			require.Len(t, lines, c.lines)
			require.Contains(t, lines[0], c.first)
		})
	}
}

func TestMemory(t *testing.T) {
	t.Parallel()
	require.Greater(t, Memory(), int64(64<<20), "less than any machine that runs this")
	require.Less(t, Memory(), int64(1<<50), fmt.Sprintf("%d is no limit but the lack of one", Memory()))
}
