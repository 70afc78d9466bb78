#!/bin/sh
# Holds the chart to its promises with Helm itself: lint, render, read what was rendered. Run it after `make test` has made
# .venv. HELM names the program where it is not on the PATH.
set -eu
cd "$(dirname "$0")/../.."
chart=deploy/helm/metering-sidecar
export HELM="${HELM:-helm}"

command -v "$HELM" >/dev/null || { echo "check.sh needs Helm 3: put it on the PATH, or say HELM=…" >&2; exit 2; }
"$HELM" lint --strict "$chart"
"$HELM" lint --strict "$chart" --values "$chart/ci/full-values.yaml"
.venv/bin/python -m pytest --quiet deploy/helm/rendered.py
