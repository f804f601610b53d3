#!/bin/sh
# Tell a Prefect server (PREFECT_API_URL) of the work pool, the deployments and the automations.
# Run it again whenever prefect.yaml has changed. Needs AUDIOSET_HOME and AUDIOSET_ROOT.
set -eu
: "${AUDIOSET_HOME:?must be the absolute path of the folder of results}"
: "${AUDIOSET_ROOT:?must be the absolute path of the folder to watch}"
cd "$(dirname "$0")"

prefect work-pool inspect audioset >/dev/null 2>&1 \
  || prefect work-pool create audioset --type process
prefect --no-prompt deploy --all
prefect automation inspect "audioset: no sign of life" >/dev/null 2>&1 \
  || prefect automation create --from-file automations.yaml
