#!/bin/sh
# Answers / with what the container was told and what it was asked. Query: sleep=SECONDS answers late; exit=CODE ends the container.
parameter() { echo "$QUERY_STRING" | tr '&' '\n' | sed -n "s/^$1=\([0-9]\{1,3\}\)$/\1/p" | head -n 1; }
body=
[ "${CONTENT_LENGTH:-0}" -gt 0 ] 2>/dev/null && body=$(head -c "$CONTENT_LENGTH" | wc -c)
delay=$(parameter sleep)
[ -z "$delay" ] || sleep "$delay"
echo "$REQUEST_METHOD $REQUEST_URI 200 from $REMOTE_ADDR" >&2
printf 'Status: 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n'
cat <<T
${GREETING:-Hello from evroc}
method: $REQUEST_METHOD
uri: $REQUEST_URI
host: $HTTP_HOST
from: $REMOTE_ADDR
forwarded: ${HTTP_X_FORWARDED_FOR-} ${HTTP_X_FORWARDED_PROTO-}
body bytes: ${body:-0}
user: $(id -u):$(id -g)
hostname: $(hostname)
T
code=$(parameter exit)
[ -z "$code" ] || kill -TERM 1
