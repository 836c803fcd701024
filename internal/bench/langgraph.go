package bench

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// langgraphFiles are a script that measures the checkpointer of LangGraph, and what npm installs for it.
//
//go:embed langgraph/bench.js langgraph/package.json langgraph/package-lock.json
var langgraphFiles embed.FS

const installTimeout = 5 * time.Minute

// langgraph runs the script, in a database of its own.
type langgraph struct {
	dir string // where it is installed
	url string
}

// installLangGraph installs what the lock names, without running anything of it, once for each version of the files.
func installLangGraph(ctx context.Context) (dir string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, installTimeout, fmt.Errorf("installing LangGraph took longer than %s", installTimeout))
	defer cancel()
	names := []string{"bench.js", "package.json", "package-lock.json"}
	texts := make([][]byte, len(names))
	digest := sha256.New()
	for i, name := range names {
		if texts[i], err = langgraphFiles.ReadFile("langgraph/" + name); err != nil {
			return "", err
		}
		digest.Write(texts[i])
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(cache, "morello", fmt.Sprintf("bench-langgraph-%x", digest.Sum(nil)[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "install-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(work) }()
	for i, name := range names {
		if err := os.WriteFile(filepath.Join(work, name), texts[i], 0o600); err != nil {
			return "", err
		}
	}
	if _, err := runIn(ctx, work, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"); err != nil {
		return "", err
	}
	return dir, os.Rename(work, dir)
}

// run has the script do what the input says, and reads what it prints.
func (l *langgraph) run(ctx context.Context, schema string, input map[string]any, result any) error {
	input["url"], input["schema"] = l.url, schema
	text, err := json.Marshal(input)
	if err != nil {
		return err
	}
	printed, err := runIn(ctx, l.dir, "node", "bench.js", string(text))
	if err != nil {
		return err
	}
	return json.Unmarshal(printed, result)
}

func runIn(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, program, args...)
	command.Dir = dir
	var out, complaints bytes.Buffer
	command.Stdout, command.Stderr = &out, &complaints
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("%s (it needs Node.js 18 or newer with npm): %w\n%s", program, err, &complaints)
	}
	return out.Bytes(), nil
}
