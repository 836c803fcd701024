package compose_test

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/config"
)

const root = "../.."

// oneShot are the services that end when they have done their work.
var oneShot = []string{"migrate"}

// load reads docker-compose.yml with some variables and no others; what its schema does not know is an error.
func load(t *testing.T, variables map[string]string) (*types.Project, error) {
	t.Helper()
	folder, err := filepath.Abs(root)
	require.NoError(t, err)
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  folder,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(folder, "docker-compose.yml")}},
		Environment: variables,
	})
}

func example(t *testing.T) map[string]string {
	t.Helper()
	variables, err := dotenv.Read(filepath.Join(root, ".env.example"))
	require.NoError(t, err)
	require.NotEmpty(t, variables)
	return variables
}

func project(t *testing.T) *types.Project {
	t.Helper()
	loaded, err := load(t, example(t))
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"nats", "postgres", "migrate", "gateway", "worker", "scheduler"}, loaded.ServiceNames())
	return loaded
}

// ours are the services that run a program of this repository.
func ours(p *types.Project) types.Services {
	services := maps.Clone(p.Services)
	maps.DeleteFunc(services, func(_ string, s types.ServiceConfig) bool { return s.Build == nil })
	return services
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	require.NoError(t, err)
	return string(text)
}

// TestVariables: each variable is in .env.example; Compose refuses to start without it or with an empty one, unless it has
// a default.
func TestVariables(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile(`\$\{?(\w+)(:-)?[^}]*\}?`).FindAllStringSubmatch(read(t, "docker-compose.yml"), -1)
	require.NotEmpty(t, named)
	used := map[string]bool{}
	for _, match := range named {
		name, optional := match[1], match[2] != ""
		if optional {
			require.Contains(t, read(t, ".env.example"), "\n# "+name+"=", "optional: shown, commented out")
			continue
		}
		used[name] = true
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(example(t))), slices.Collect(maps.Keys(used)))
	for name := range used {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			variables := example(t)
			variables[name] = ""
			_, err := load(t, variables)
			require.ErrorContains(t, err, name, "empty")
			delete(variables, name)
			_, err = load(t, variables)
			require.ErrorContains(t, err, name, "missing")
		})
	}
}

// TestExampleValues: they show a form that nats-server and URLs take as it is, and no two services share one.
func TestExampleValues(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for name, value := range example(t) {
		require.Regexp(t, `^[A-Za-z][A-Za-z0-9]*$`, value, name)
		require.False(t, seen[value], name)
		seen[value] = true
	}
}

func TestUnknownFieldsAreRefused(t *testing.T) {
	t.Parallel()
	_, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{ConfigFiles: []types.ConfigFile{{
		Filename: "x.yml", Content: []byte("name: x\nservices: {a: {image: a, healthchek: {}}}\n"),
	}}})
	require.ErrorContains(t, err, "healthchek")
}

// TestHealth: a service that stays says whether it is well and is started again; one that ends is not.
func TestHealth(t *testing.T) {
	t.Parallel()
	services := project(t).Services
	for name, service := range services {
		if slices.Contains(oneShot, name) {
			require.Nil(t, service.HealthCheck, name)
			require.Equal(t, "no", service.Restart, name)
			continue
		}
		require.NotNil(t, service.HealthCheck, name)
		require.Greater(t, len(service.HealthCheck.Test), 1, name)
		require.Equal(t, "CMD", service.HealthCheck.Test[0], name)
		require.Equal(t, "unless-stopped", service.Restart, name)
	}
	for name, service := range ours(project(t)) {
		if !slices.Contains(oneShot, name) {
			require.Equal(t, types.HealthCheckTest{"CMD", "/" + name, "health"}, service.HealthCheck.Test)
		}
	}
}

// TestOrder: nobody starts before what it needs is there.
func TestOrder(t *testing.T) {
	t.Parallel()
	for name, service := range project(t).Services {
		for needed, how := range service.DependsOn {
			want := types.ServiceConditionHealthy
			if slices.Contains(oneShot, needed) {
				want = types.ServiceConditionCompletedSuccessfully
			}
			require.Equal(t, want, how.Condition, "%s needs %s", name, needed)
		}
	}
	services := project(t).Services
	require.Contains(t, services["migrate"].DependsOn, "postgres")
	require.Contains(t, services["gateway"].DependsOn, "nats")
	for _, name := range []string{"worker", "scheduler"} {
		require.Contains(t, services[name].DependsOn, "nats", name)
		require.Contains(t, services[name].DependsOn, "migrate", name)
	}
}

func TestReplicas(t *testing.T) {
	t.Parallel()
	services := project(t).Services
	for _, name := range []string{"worker", "scheduler"} {
		service := services[name]
		require.Equal(t, 2, service.GetScale(), name)
		require.Empty(t, service.Ports, "two cannot publish one port")
	}
}

// TestPrograms: commands and health checks name programs of this repository, and none of them runs as root.
func TestPrograms(t *testing.T) {
	t.Parallel()
	dockerfile := read(t, "Dockerfile")
	services := ours(project(t))
	require.Len(t, services, 4)
	for name, service := range services {
		require.NotEmpty(t, service.Command, name)
		program, absolute := strings.CutPrefix(service.Command[0], "/")
		require.True(t, absolute, "%s: the image has no shell that would look for %s", name, program)
		require.FileExists(t, filepath.Join(root, "cmd", program, "main.go"), name)
		require.Regexp(t, `^[1-9]\d*:[1-9]\d*$`, service.User, name)
		require.Contains(t, dockerfile, "\nUSER "+service.User+"\n", name)
		require.Empty(t, service.Entrypoint, name)
		require.True(t, service.ReadOnly, name)
		require.False(t, service.Privileged, name)
		require.Equal(t, []string{"ALL"}, service.CapDrop, name)
	}
	require.NotContains(t, dockerfile, "ENTRYPOINT")
}

// TestSettings: a misspelled variable would be a setting that nobody reads.
func TestSettings(t *testing.T) {
	t.Parallel()
	var known []string
	for _, setting := range (config.Config{}).Settings() {
		known = append(known, setting.Name)
	}
	for name, service := range ours(project(t)) {
		require.NotEmpty(t, service.Environment, name)
		for variable := range service.Environment {
			require.Contains(t, known, variable, name)
		}
		require.NotContains(t, service.Environment, "MORELLO_HEALTH_ADDR", "health is asked for on loopback")
	}
}

// TestLogins: every program logs in to NATS as itself, with the password that nats-server was given for it.
func TestLogins(t *testing.T) {
	t.Parallel()
	services, passwords := project(t).Services, example(t)
	for _, name := range []string{"gateway", "worker", "scheduler"} {
		password := passwords["MORELLO_NATS_"+strings.ToUpper(name)+"_PASSWORD"]
		require.NotEmpty(t, password, name)
		url := services[name].Environment["MORELLO_NATS_URL"]
		require.NotNil(t, url, name)
		require.Equal(t, "nats://_"+name+":"+password+"@nats:4222", *url)
	}
	for _, match := range regexp.MustCompile(`\$(MORELLO_\w+)`).FindAllStringSubmatch(read(t, "deploy/nats/nats-server.conf"), -1) {
		given := services["nats"].Environment[match[1]]
		require.NotNil(t, given, match[1])
		require.Equal(t, passwords[match[1]], *given)
	}
}

// TestPorts: what is published is for this machine; TLS and firewalls are the operator's to set up first.
func TestPorts(t *testing.T) {
	t.Parallel()
	published := 0
	for name, service := range project(t).Services {
		for _, port := range service.Ports {
			ip := net.ParseIP(port.HostIP)
			require.True(t, ip.IsLoopback(), "%s publishes %s on %q", name, port.Published, port.HostIP)
			published++
		}
		require.NotEqual(t, "host", service.NetworkMode, name)
	}
	require.Equal(t, 2, published, "gateway and nats")
}

// TestVolumes: what is mounted is there, read-only, or is a volume that is declared and used.
func TestVolumes(t *testing.T) {
	t.Parallel()
	loaded := project(t)
	used, files := map[string]bool{}, map[string]string{}
	for name, service := range loaded.Services {
		for _, volume := range service.Volumes {
			switch volume.Type {
			case types.VolumeTypeVolume:
				require.Contains(t, loaded.Volumes, volume.Source, name)
				used[volume.Source] = true
			case types.VolumeTypeBind:
				require.FileExists(t, volume.Source, name)
				require.True(t, volume.ReadOnly, volume.Source)
				files[volume.Target] = volume.Source
			default:
				require.Fail(t, "unexpected mount", "%s: %s", name, volume.Type)
			}
		}
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(loaded.Volumes)), slices.Collect(maps.Keys(used)))
	command := loaded.Services["nats"].Command
	config := files[command[len(command)-1]]
	require.True(t, strings.HasSuffix(filepath.ToSlash(config), "deploy/nats/nats-server.conf"), config)
	require.Contains(t, loaded.Services["postgres"].Command, "shared_preload_libraries=pg_stat_statements")
}
