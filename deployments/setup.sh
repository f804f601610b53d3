#!/bin/sh
# Tell a Prefect server (PREFECT_API_URL) of the work pool, the deployments and the automations.
# Run it again whenever prefect.yaml has changed. Needs AUDIOSET_HOME and AUDIOSET_ROOT. A new work
# pool is of the type AUDIOSET_POOL: process, docker or kubernetes.
set -eu
: "${AUDIOSET_HOME:?must be the absolute path of the folder of results}"
: "${AUDIOSET_ROOT:?must be the absolute path of the folder to watch}"
cd "$(dirname "$0")"

type=${AUDIOSET_POOL:-process}
set -- --type "$type"
case $type in
  process) ;;
  docker|kubernetes) set -- "$@" --base-job-template "$type-pool.json" ;;
  *) echo "AUDIOSET_POOL must be process, docker or kubernetes, not $type" >&2; exit 2 ;;
esac
prefect work-pool inspect audioset >/dev/null 2>&1 || prefect work-pool create audioset "$@"
prefect --no-prompt deploy --all
prefect automation inspect "audioset: no sign of life" >/dev/null 2>&1 \
  || prefect automation create --from-file automations.yaml
