# What a laptop runs and what CI runs are the same targets.
SHELL := /bin/bash
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
PYTHON := .venv/bin/python
LOCALCLUSTER := PYTHONPATH=tools $(PYTHON) -m localcluster
IMAGES := build/images/finetune-operator.tar build/images/finetune-trainer.tar build/images/finetune-scripted-trainer.tar \
  build/images/finetune-test-s3.tar

.DEFAULT_GOAL := help
.PHONY: help venv generate format check docs test test-unit test-integrations images cluster cluster-down demo bench \
  faults clean release-artifacts lint-delivery

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: ## the Python environment in .venv
	@scripts/venv

generate: venv ## the CRD from the models, into manifests/ and helm/
	@scripts/generate

format: venv ## format the code
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix .

check: venv ## style, types, import contracts, generated files, and the tests that need no cluster
	@scripts/check

test-unit: ## the unit tests of the pure parts, in a small environment: a minute on a new clone
	@scripts/test-unit

images: venv ## the images as archives in build/images, in the format of docker save
	@scripts/build-images --for-tests

cluster: venv images ## a local Kubernetes with S3 and the images; prints how to reach it
	@$(LOCALCLUSTER) up --images $(IMAGES)

cluster-down: venv ## take the local cluster down and leave nothing behind
	@$(LOCALCLUSTER) down

demo: venv ## from nothing to a tuned model: cluster, operator, one YAML, answers before and after
	@scripts/demo

test: venv ## everything: check, images, a local cluster, all tests, and away again
	@scripts/test

test-integrations: venv ## with programs of others, as they are shipped: Prometheus, Kueue
	@scripts/test-integrations

docs: venv ## the documentation as a site in build/site
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

bench: venv ## the tables of docs/benchmarks
	@scripts/bench

faults: venv ## the tables of docs/reliability: kills, faults of the API server and of TLS, GitOps verbs; an hour
	@scripts/faults kills api tls gitops

release-artifacts: venv ## wheel, sdist, chart, manifests, SBOMs, licences, checksums in build/release, twice with equal bytes
	@scripts/release-artifacts

lint-delivery: ## actionlint over the workflows, hadolint over the Dockerfiles
	@scripts/lint-delivery
