#!/bin/sh
# Answers / with what the container was told and what it was asked, and logs a line.
# Query: sleep=SECONDS answers late; exit=CODE ends the container after the answer.
parameter() { echo "$QUERY_STRING" | tr '&' '\n' | sed -n "s/^$1=\([0-9]\{1,3\}\)$/\1/p" | head -n 1; }
received=0
[ "${CONTENT_LENGTH:-0}" -gt 0 ] 2>/dev/null && received=$(head -c "$CONTENT_LENGTH" | wc -c)
delay=$(parameter sleep)
[ -z "$delay" ] || sleep "$delay"
body="${GREETING:-Hello from evroc}
method: $REQUEST_METHOD
uri: $REQUEST_URI
host: $HTTP_HOST
from: $REMOTE_ADDR
forwarded: ${HTTP_X_FORWARDED_FOR-} ${HTTP_X_FORWARDED_PROTO-}
body bytes: $received
user: $(id -u):$(id -g)
hostname: $(hostname)
"
printf 'Status: 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %s\r\nConnection: close\r\n\r\n' "$(printf %s "$body" | wc -c)"
printf %s "$body"
echo "$REQUEST_METHOD $REQUEST_URI 200 from $REMOTE_ADDR" >&2
code=$(parameter exit)
if [ -n "$code" ]; then
  echo "$code" >/tmp/exit-code
  kill -TERM 1
fi
