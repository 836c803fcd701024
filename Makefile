# Needs Go, a C compiler for the race detector, and node with npm for three tests: the Node.js example, the AsyncAPI document and the second reader of snapshots. Tools are installed once per version, outside the repository.

GOLANGCI_LINT_VERSION := v2.15.0
GOFUMPT_VERSION       := v0.12.0

# CI systems may run without HOME; Go needs it for its caches.
ifeq ($(strip $(HOME)),)
  HOME := $(shell home=$$(getent passwd "$$(id -u)" 2>/dev/null | cut -d: -f6); [ -w "$$home" ] && echo "$$home")
  ifeq ($(strip $(HOME)),)
    HOME := $(if $(TMPDIR),$(TMPDIR),/tmp)/morello-home
  endif
  export HOME
endif

GO            ?= go
TOOLS         := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/morello/tools
GOLANGCI_LINT := $(TOOLS)/golangci-lint@$(GOLANGCI_LINT_VERSION)/golangci-lint
GOFUMPT       := $(TOOLS)/gofumpt@$(GOFUMPT_VERSION)/gofumpt

GOTESTFLAGS ?=
RACEFLAGS   ?= -race -shuffle=on -timeout 20m
FUZZTIME    ?= 30s

.DEFAULT_GOAL := help
# Targets follow one another even under -j: `generate-check` writes what `test` reads.
.NOTPARALLEL:

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: up
up: ## Start everything on this machine: PostgreSQL, NATS, gateway, worker, scheduler
	@$(GO) build -o bin/morello ./cmd/morello
	@bin/morello dev

.PHONY: test
test: ## Run all tests (GOTESTFLAGS="-run Name -v" narrows them)
	$(GO) test $(GOTESTFLAGS) ./...

.PHONY: race
race: GOTESTFLAGS := $(RACEFLAGS)
race: test ## Run all tests under the race detector, in random order

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Check formatting and the linters of .golangci.yml
	@echo "golangci-lint $(GOLANGCI_LINT_VERSION): all packages (minutes when its cache is cold)"
	$(GOLANGCI_LINT) run ./...

.PHONY: fmt
fmt: $(GOFUMPT) ## Format all Go files
	$(GOFUMPT) -l -w .

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (30s)
	@set -e; \
	for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n 1 dirname | sort -u); do \
		listed=$$($(GO) test -list '^Fuzz' "$$dir"); \
		for target in $$(printf '%s\n' "$$listed" | grep '^Fuzz' || true); do \
			echo "fuzz: $$dir $$target for $(FUZZTIME)"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$dir"; \
		done; \
	done

.PHONY: bench
bench: ## Run the Go benchmarks
	$(GO) test -bench . -run '^$$' ./...

.PHONY: generate
generate: ## Rewrite the generated files
	$(GO) generate ./...

# A file that git does not know and that is newer than the stamp was written by a generator and forgotten.
.PHONY: generate-check
generate-check: ## Fail if a generated file is out of date or not in git
	@set -e; \
	stamp=$$(mktemp); trap 'rm -f "$$stamp"' EXIT; \
	before=$$(git diff | git hash-object --stdin); \
	echo "$(GO) generate ./..."; \
	$(GO) generate ./...; \
	after=$$(git diff | git hash-object --stdin); \
	[ "$$before" = "$$after" ] || { git --no-pager diff --stat; \
		echo "generate-check: generated files were out of date; they are up to date now: commit them"; exit 1; }; \
	new=$$(git ls-files --others --exclude-standard | while IFS= read -r file; do \
		if [ -n "$$(find "$$file" -newer "$$stamp")" ]; then printf '  %s\n' "$$file"; fi; done); \
	[ -z "$$new" ] || { printf 'generate-check: generated, but not in git:\n%s\n' "$$new"; exit 1; }

.PHONY: ci
ci: GOTESTFLAGS := $(RACEFLAGS)
ci: lint generate-check test ## All that CI runs: lint, generate-check, and test with the race detector

$(GOLANGCI_LINT):
	@echo "installing golangci-lint $(GOLANGCI_LINT_VERSION) (minutes, once)"
	GOBIN="$(@D)" $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)

$(GOFUMPT):
	@echo "installing gofumpt $(GOFUMPT_VERSION)"
	GOBIN="$(@D)" $(GO) install mvdan.cc/gofumpt@$(GOFUMPT_VERSION)
