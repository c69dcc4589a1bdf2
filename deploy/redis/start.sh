#!/bin/sh
# Starts Redis with the users of users.acl: sh start.sh redis-server OPTION...
# Their passwords come from the environment. The file that Redis reads, and its command line, hold their digests only.
# Nobody can sign in as `default`, and it has every right: Redis reads its own append-only file under that name, and
# drops every transaction that `default` may not do (https://github.com/redis/redis/issues/14541).
set -eu
digest() { printf %s "$1" | sha256sum | cut -d " " -f 1; }
users=${REDIS_USERS_FILE:-/tmp/users.acl}
service=$(digest "${REDIS_PASSWORD:?the password of the user service}")
executor=$(digest "${REDIS_EXECUTOR_PASSWORD:?the password of the user executor}")
sed -e "s/@SERVICE@/$service/" -e "s/@EXECUTOR@/$executor/" "$(dirname "$0")/users.acl" > "$users"
unset REDIS_PASSWORD REDIS_EXECUTOR_PASSWORD
exec "$@" --aclfile "$users"
