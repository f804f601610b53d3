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
# Each by itself, since Prefect makes those that are there once more; `audioset serve` brings one.
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
sed -n 's/^  - name: "\(.*\)"$/\1/p' automations.yaml | while read -r name; do
  prefect automation inspect "$name" >/dev/null 2>&1 </dev/null && continue
  awk -v name="\"$name\"" '/^automations:/; /^  - name: /{is_it = index($0, name)} is_it' \
    automations.yaml >"$folder/one.yaml"
  prefect automation create --from-file "$folder/one.yaml" </dev/null
done
