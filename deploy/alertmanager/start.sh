#!/bin/sh
# Starts Alertmanager with its two URLs from the environment: sh start.sh alertmanager OPTION...
# They stand in a file that only its own user reads, and on no command line.
set -eu
umask 077
escaped() { printf %s "$1" | sed -e 's/[\\&|]/\\&/g'; }
page=$(escaped "${ALERT_PAGE_URL:?a URL that takes what wakes somebody}")
ticket=$(escaped "${ALERT_TICKET_URL:?a URL that takes what waits for the morning}")
config=${ALERTMANAGER_CONFIG:-/tmp/alertmanager.yml}
sed -e "s|http://page.invalid/|$page|" -e "s|http://ticket.invalid/|$ticket|" \
  "$(dirname "$0")/alertmanager.yml" > "$config"
unset ALERT_PAGE_URL ALERT_TICKET_URL
exec "$@" --config.file="$config"
