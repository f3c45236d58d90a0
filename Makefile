# Everything runs inside .venv; `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS ?= tests
ARGS ?=
WORKERS ?= 2
.DEFAULT_GOAL := help
.PHONY: help run test check fmt token bench-market history chaos chaos-drain rolling soak chaos-chat broker tools moved

help: ## list all targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
	    printf '  make %-15s %s\n' "$$target" "$$text"; done

run: $(VENV)/.runs $(if $(AMQP_URL),,broker) ## start the whole system here: broker, database, services, GATEWAYS=2 gateways on GATEWAY_PORT=8080
	@exec $(BIN)/python -m deploy.local run

# All tests run in parallel processes, each with its own broker and database, files in order.
test: $(VENV)/.installed broker tools ## run the tests in WORKERS=2 processes; TESTS=tests/unit/gateway/fanout/test_hub.py selects some, in one; ARGS='-x -k name' goes to pytest
	@exec $(BIN)/python -m pytest $(TESTS) $(if $(filter tests,$(TESTS)),-n $(WORKERS) --dist loadfile --no-loadscope-reorder) $(ARGS)

.PHONY: test-long
test-long: $(VENV)/.installed broker tools ## run the tests marked long: npm packages, clusters, containers; TESTS and ARGS as in test
	@exec $(BIN)/python -m pytest $(TESTS) -m long $(ARGS)

check: $(VENV)/.installed ## lint, formatting, types, import rules, Kubernetes manifests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/unit/test_import_rules.py tests/unit/deploy/test_k8s.py -q

.PHONY: docs
docs: $(VENV)/.installed ## generate docs/openapi.json, docs/asyncapi.json and the JavaScript client's event types
	@$(BIN)/python -m gateway.documents docs

.PHONY: test-snippets
test-snippets: $(VENV)/.installed broker ## run the guides' programs in Node, Go and Java too; downloads their packages
	@exec $(BIN)/python -m pytest tests/e2e/programs_of_guides.py $(ARGS)

fmt: $(VENV)/.installed ## format the code and apply the linter's fixes
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Only variables on make's command line count: the shell's own USER must not.
$(foreach name,USER ROLE FIRST LAST AVATAR TTL COMMUNITIES,$(if $(filter command,$(origin $(name))),\
    $(eval export TOKEN_$(name) := $$($(name)))))

token: $(VENV)/.runs ## print a token for the running system: USER=user_456 [ROLE=admin] [FIRST=John LAST=Doe] [AVATAR=url] [TTL=86400] [COMMUNITIES=a,b]
	@exec $(BIN)/python -m deploy.local token

.PHONY: lock
lock: $(VENV)/.installed ## upgrade runtime dependencies to the newest allowed versions and pin them
	@$(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager -e '.[tracing]'
	@$(BIN)/python -m deploy.tools.lock > deploy/container/constraints.txt

.PHONY: metrics
metrics: $(VENV)/.installed ## generate docs/metrics.md from the declared metrics
	@$(BIN)/python -m deploy.tools.metrics_page > docs/metrics.md

.PHONY: k8s-manifests k8s-check
k8s-manifests: $(VENV)/.installed ## generate the manifests of rules and broker accounts from deploy/prometheus and deploy/rabbitmq
	@$(BIN)/python -m deploy.tools.k8s_manifests

k8s-check: $(VENV)/.installed ## apply both overlays to a real Kubernetes API server; builds it with Go the first time
	@exec $(BIN)/python -m pytest tests/k8s -m long $(ARGS)

# Two stamps: what the system needs to run, and the test tools on top. Each names the directory, since neither a virtual
# environment nor an editable install can be moved.
ifneq ($(shell cat $(VENV)/.runs 2>/dev/null),$(CURDIR))
$(VENV)/.runs: moved
endif
ifneq ($(shell cat $(VENV)/.installed 2>/dev/null),$(CURDIR))
$(VENV)/.installed: moved
endif
moved:

PACKAGES := pyproject.toml deploy/bootstrap.py deploy/container/constraints.txt

$(VENV)/.runs: $(PACKAGES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "setup: Python 3.11 or later is needed: make PYTHON=...")'
	@$(PYTHON) deploy/bootstrap.py environment $(VENV) run

$(VENV)/.installed: $(VENV)/.runs $(PACKAGES)
	@$(PYTHON) deploy/bootstrap.py environment $(VENV) test

# The broker is a system package; this check is cheap enough for every run.
broker:
	@test -x /usr/lib/rabbitmq/bin/rabbitmq-server || $(PYTHON) deploy/bootstrap.py broker

tools:
	@$(PYTHON) deploy/bootstrap.py tools

.PHONY: image image-test compose-test
image: $(VENV)/.runs ## build the image realtime:local with the engine that answers, else with a private one
	@exec $(BIN)/python -m deploy.container.image

image-test: $(VENV)/.installed ## run all services from the image, read-only and without capabilities; needs root
	@exec $(BIN)/python -m pytest tests/containers/test_image.py -m long $(ARGS)

compose-test: $(VENV)/.installed ## run compose.yaml with Debian's servers, a small load and faults; needs root and Go
	@exec $(BIN)/python -m pytest tests/containers/test_compose.py -m long -rP $(ARGS)

chaos: $(VENV)/.installed broker ## inject random faults under load and check every item; ARGS='--faults 200 --seed 1'; see docs/reliability.md
	@exec $(BIN)/python -m tests.chaos $(ARGS)

chaos-drain: $(VENV)/.installed broker ## send SIGTERM to a gateway with 5,000 sockets; ARGS='--sockets 1000'
	@exec $(BIN)/python -m tests.chaos.drain $(ARGS)

rolling: $(VENV)/.installed broker ## restart every gateway and service in turn under load
	@exec $(BIN)/python -m tests.chaos --rolling $(ARGS)

soak: $(VENV)/.installed broker ## run mixed load with churn for MINUTES=10 and check for growth
	@exec $(BIN)/python -m tests.chaos.soak --minutes $(or $(MINUTES),10) $(ARGS)

chaos-chat: $(VENV)/.installed broker ## inject faults as chaos does, killing only chat_service
	@exec $(BIN)/python -m tests.chaos --kinds kill:chat_service --faults 12 --pause 4,6 $(ARGS)

.PHONY: bench bench-peers
bench: $(VENV)/.installed broker ## benchmark the whole system, all scenarios; ARGS='fanout --rate 3000' selects one; see docs/performance.md
	@exec $(BIN)/python -m tests.bench $(ARGS)

bench-peers: $(VENV)/.installed broker ## benchmark fanout, idle and connect on comparable servers too
	@exec $(BIN)/python -m tests.bench --peers $(ARGS)

bench-market: $(VENV)/.installed broker ## benchmark market_feed at 20,000 ticks per second; ARGS='--rate 60000'
	@exec $(BIN)/python -m tests.bench.bench_market $(ARGS)

MINUTES ?= 10
.PHONY: fuzz
fuzz: $(VENV)/.installed broker ## fuzz a running gateway with frames, bytes and calls for MINUTES=10; ARGS='--seed 1' repeats a run
	@exec $(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(ARGS)

.PHONY: storm audit
storm: $(VENV)/.installed broker ## connect thousands of clients at once while others chat; ARGS='--clients 5000'
	@exec $(BIN)/python -m tests.security.storm $(ARGS)

audit: $(VENV)/.installed ## audit installed packages for known vulnerabilities; ARGS=--strict fails if the service is unreachable
	@exec $(BIN)/python -m deploy.tools.audit $(ARGS)

history: $(VENV)/.installed broker ## page through a room of 100,000 messages and print every query plan
	@exec $(BIN)/python -m tests.bench.history $(ARGS)

.PHONY: screenshots
screenshots: $(VENV)/.installed broker tools ## take screenshots of the web page at 360 and 1280 px, light and dark: build/screenshots/*.png
	@exec $(BIN)/python -m tests.browser.screenshots $(ARGS)

.PHONY: scale-demo monitoring-demo failover
failover: $(VENV)/.installed broker tools ## kill and freeze one of two chat_service replicas under load and print the pauses of its rooms
	@exec $(BIN)/python -m tests.operations.failover $(ARGS)

.PHONY: upgrade-demo
upgrade-demo: $(VENV)/.installed broker tools ## upgrade a running installation from RELEASE=<tag or commit>, by default the newest tag, and go back, under load
	@exec $(BIN)/python -m tests.operations.upgrade_demo $(if $(RELEASE),--release $(RELEASE)) $(ARGS)

.PHONY: restore-demo
restore-demo: $(VENV)/.installed broker tools ## lose the database under load and restore a backup without restarting a gateway
	@exec $(BIN)/python -m tests.operations.restore_demo $(ARGS)

scale-demo: $(VENV)/.installed broker tools ## add and remove gateways behind HAProxy under load and count losses
	@exec $(BIN)/python -m tests.operations.scale_demo $(ARGS)

monitoring-demo: $(VENV)/.installed broker tools ## run Prometheus on the system and check targets, rules and dashboard queries
	@exec $(BIN)/python -m tests.operations.monitoring_demo $(ARGS)
