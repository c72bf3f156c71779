SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# Tools live beside the sources, one file per version, so that a new version is
# installed and an old one is never run by mistake.
TOOLS := $(CURDIR)/.bin
GOLANGCI_LINT_VERSION := v2.15.0
GOVULNCHECK_VERSION := v1.9.0
BENCHSTAT_VERSION := v0.0.0-20260908200009-22c9c6c9d4da
GOLANGCI_LINT := $(TOOLS)/golangci-lint-$(GOLANGCI_LINT_VERSION)
BENCHSTAT := $(TOOLS)/benchstat-$(BENCHSTAT_VERSION)

BINARIES := ./cmd/httvps-server ./backend/cmd/httvps-backend ./gateway/cmd/httvps-gateway \
	./sdk/cli/cmd/httvps ./ctl/cmd/httvpsctl
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# End-to-end tests drive the binaries in this folder.
export HTTVPS_BIN := $(CURDIR)/bin
# The version comes from here, so that a build does not depend on git.
export GOFLAGS := -buildvcs=false $(filter-out -buildvcs=%,$(GOFLAGS))

# SQLite is C that was translated: to watch each of its accesses to memory takes a third of
# the control plane's tests, and all that they could find is there. Its driver is watched.
RACE := -race '-gcflags=modernc.org/sqlite/lib=-race=false'

FUZZTIME ?= 20s
BENCHTIME ?= 1s
BENCHCOUNT ?= 6
BENCH_FLAGS ?=
BENCH_PACKAGES := ./sdk/go/wire ./sdk/go/carrier

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-14s %s\n", $$1, $$2}'

.PHONY: build
build: ## Build the five static binaries into bin/
	mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ $(BINARIES)

# The demo is built and then run, not "go run": that would not pass on SIGTERM.
.PHONY: demo
demo: build ## Run a whole service with a connected device; DEMO_ONCE=1 ends after its self-check
	go build -trimpath -o $(TOOLS)/demo ./e2e/cmd/demo
	$(TOOLS)/demo

.PHONY: check
check: lint test standalone ## What a change must pass: lint, test, standalone

.PHONY: test
test: install-deps build ## Test both modules with the race detector, in random order
	go test $(RACE) -shuffle=on -timeout=15m work

# Fails, other than "test", where PostgreSQL is missing and cannot be installed.
.PHONY: test-postgres
test-postgres: install-deps ## Test all that depends on PostgreSQL or NATS, on servers that the tests start
	HTTVPS_TEST_POSTGRES=required go test $(RACE) -shuffle=on -timeout=15m -run='PostgreSQL|BothEngines|ABus' ./backend/...

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Lint both modules
	$(GOLANGCI_LINT) run ./...
	cd sdk/go && $(GOLANGCI_LINT) run ./...

.PHONY: lint-deploy
lint-deploy: ## Check the Dockerfiles and the Compose file (part of test, too)
	go test -count=1 ./deploy/docker

.PHONY: standalone
standalone: ## Build each module alone, as its users will
	cd sdk/go && GOWORK=off go mod tidy -diff && GOWORK=off go build ./...
	GOWORK=off go mod tidy -diff && GOWORK=off go build ./...

.PHONY: vuln
vuln: ## Report known vulnerabilities that we call (needs the network)
	go run golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION) ./...
	cd sdk/go && go run golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION) ./...

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME each
	.ci/fuzz $(FUZZTIME)

.PHONY: soak
soak: install-deps build ## Run the long tests at full counts and every fuzz target for minutes
	HTTVPS_SOAK=1 go test $(RACE) -shuffle=on -count=1 -timeout=3h work
	$(MAKE) fuzz FUZZTIME=5m

.PHONY: bench
bench: install-deps ## Measure the binaries beside a raw TLS relay and beside no tunnel (docs/benchmarks.md); BENCH_FLAGS='-run REGEX -rounds N'
	go build -trimpath -o $(TOOLS)/bench ./bench
	$(TOOLS)/bench $(BENCH_FLAGS)

.PHONY: bench-micro
bench-micro: install-deps $(BENCHSTAT) ## Measure codec and carrier alone, with Go's benchmarks; micro.json and micro.txt in bench/out
	mkdir -p bench/out
	go test -json -run='^$$' -bench=. -benchmem -benchtime=$(BENCHTIME) -count=$(BENCHCOUNT) $(BENCH_PACKAGES) \
		| tee bench/out/micro.json | jq --unbuffered -j 'select(.Action == "output").Output' | tee bench/out/micro.txt
	$(BENCHSTAT) bench/out/micro.txt

.PHONY: bench-control
bench-control: install-deps ## Measure the control plane with 100,000 users: what gateways ask, lists, idle memory (docs/benchmarks.md)
	go test -run='^$$' -bench='ControlPlane|Lists|Idle' -benchtime=1x -timeout=1h ./backend/internal/store

.PHONY: install-deps
install-deps: ## Install the Debian packages that tests need, when missing and when root
	@.ci/install-deps

.PHONY: clean
clean: ## Remove what was built, the tools too
	rm -rf bin $(TOOLS) bench/out

$(GOLANGCI_LINT):
	GOBIN=$(TOOLS)/install go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv $(TOOLS)/install/golangci-lint $@

$(BENCHSTAT):
	GOBIN=$(TOOLS)/install go install golang.org/x/perf/cmd/benchstat@$(BENCHSTAT_VERSION)
	mv $(TOOLS)/install/benchstat $@
