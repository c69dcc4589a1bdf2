#!/bin/sh
# Fills in where alerts go, then starts Alertmanager: sh start.sh alertmanager OPTION...
# ALERT_PAGE_URL and ALERT_TICKET_URL take Alertmanager's webhook (JSON by POST): PagerDuty, Opsgenie, Slack and others
# have bridges for it. They may hold a secret, so they are in the environment and in a file of this user alone.
set -eu
config=${ALERTMANAGER_CONFIG:-/tmp/alertmanager.yml}
cp "$(dirname "$0")/alertmanager.yml" "$config"
chmod 600 "$config"
for name in ALERT_PAGE_URL ALERT_TICKET_URL; do
  url=$(printenv "$name" || true)
  case $url in
    "") sed -i "/@$name@/d" "$config"; echo "$name is not set: these alerts are shown, and sent to nobody" >&2 ;;
    http://*|https://*) sed -i "s|@$name@|$(printf %s "$url" | sed 's/[&|\\]/\\&/g')|" "$config" ;;
    *) echo "$name: takes http:// or https://" >&2; exit 2 ;;
  esac
done
unset ALERT_PAGE_URL ALERT_TICKET_URL
exec "$@" --config.file="$config"
