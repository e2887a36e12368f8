#!/usr/bin/env bash
# Gives the hub what it needs in a project of BigQuery, and no more: a service account that may run queries, that owns
# the hub's own datasets, and that may read Heap's. Running it again changes nothing.
#
# Usage: bigquery.sh PROJECT PREFIX [--location US] [--heap-dataset DATASET] [--account heap-hub] [--key FILE]
#
#   PREFIX          begins the names of the hub's datasets, as `schema_prefix` does: PREFIX_models, PREFIX_hub, ...
#   --heap-dataset  Heap's own dataset, which Heap Connect writes into this project
#   --key           where to write a key of the account, for `credentials`; without it no key is made
set -euo pipefail

usage() {
    sed -n 's/^# \{0,1\}//; 2,9p' "$0" >&2
    exit 2
}

location=US heap_dataset="" account=heap-hub key="" places=()
while [ $# -gt 0 ]; do
    case "$1" in
        --location) location=${2:?} ; shift 2 ;;
        --heap-dataset) heap_dataset=${2:?} ; shift 2 ;;
        --account) account=${2:?} ; shift 2 ;;
        --key) key=${2:?} ; shift 2 ;;
        -*) usage ;;
        *) places+=("$1") ; shift ;;
    esac
done
[ ${#places[@]} -eq 2 ] || usage
project=${places[0]} prefix=${places[1]}
# a dataset's name goes into a statement below
for name in "$prefix" ${heap_dataset:+"$heap_dataset"}; do
    [[ $name =~ ^[A-Za-z0-9_]+$ ]] || { echo "$name: letters, digits and underscores only" >&2; exit 2; }
done
member="serviceAccount:$account@$project.iam.gserviceaccount.com"

gcloud services enable bigquery.googleapis.com --project "$project"
gcloud iam service-accounts describe "${member#serviceAccount:}" --project "$project" >/dev/null 2>&1 ||
    gcloud iam service-accounts create "$account" --project "$project" --display-name "Heap integration hub"

# To run queries is a right in the project, to read and write one in a dataset.
gcloud projects add-iam-policy-binding "$project" --member "$member" --role roles/bigquery.jobUser --condition None

allow() { # ROLE DATASET
    bq query --project_id "$project" --location "$location" --use_legacy_sql=false --quiet \
        "grant \`$1\` on schema \`$project.$2\` to '$member'"
}
for part in heap_connect models hub exports; do
    bq show --dataset "$project:${prefix}_$part" >/dev/null 2>&1 ||
        bq mk --dataset --location "$location" --description "Heap integration hub" "$project:${prefix}_$part"
    allow roles/bigquery.dataEditor "${prefix}_$part"
done
if [ -n "$heap_dataset" ]; then
    allow roles/bigquery.dataViewer "$heap_dataset"
fi
if [ -n "$key" ]; then
    (umask 077 && gcloud iam service-accounts keys create "$key" --iam-account "${member#serviceAccount:}" --project "$project")
fi
