# Prints the ssh keys in a file of YAML or JSON as lines of an authorized_keys file, with all that is before and after each key.
# A key that this guest's ssh server (dropbear) cannot restrict as its options say is left out and named on `report`: it would be refused
# at every login without a word. The server refuses what it does not know, too.
BEGIN {
  key = "(ssh-(ed25519|rsa|dss)|ecdsa-sha2-nistp(256|384|521)|sk-[a-z0-9-]+@openssh[.]com|[a-z0-9-]+-cert-v01@openssh[.]com)[ \t]+[A-Za-z0-9+/=]{40,}"
  count = split("restrict no-pty no-port-forwarding no-agent-forwarding no-X11-forwarding command permitopen no-touch-required verify-required", names, " ")
  for (i = 1; i <= count; i++) supported[tolower(names[i])] = 1
}

# The longest line that dropbear reads.
function long(line) { return length(line) > 4200 }

function refuse(line, why,  at) {
  match(line, key)
  at = substr(line, RSTART)
  print "evroc-guest: ssh key not accepted: " why ": " substr(at, 1, 24) "..." substr(at, length(at) - 19) >>report
}

# The first option that the server does not have; quotes may hold commas.
function unsupported(options,  i, c, quoted, name, named) {
  options = options ","
  for (i = 1; i <= length(options); i++) {
    c = substr(options, i, 1)
    if (c == "\\" && quoted) { i++; continue }
    if (c == "\"") quoted = !quoted
    else if (c == "," && !quoted) {
      if (!(tolower(name) in supported)) return name
      name = ""; named = 0
    } else if (c == "=" && !quoted) named = 1
    else if (!named && !quoted) name = name c
  }
  return ""
}

# One string of the file.
function take(line,  options, name) {
  gsub(/^[ \t\r\n]+|[ \t\r\n]+$/, "", line)
  if (line ~ /^#/ || !match(line, key)) return
  options = substr(line, 1, RSTART - 1)
  sub(/[ \t]+$/, "", options)
  if (substr(line, RSTART) ~ /^[a-z0-9-]+-cert-v01@/) return refuse(line, "this image's ssh server takes no certificates")
  if (long(line)) return refuse(line, "its line is longer than this image's ssh server reads")
  if (options != "") {
    name = unsupported(options)
    if (name != "") return refuse(line, "this image's ssh server has no option \"" name "\"")
  }
  print line
}

# The string in double quotes that begins at the start of `text`; leaves its length in `used`.
function quoted(text,  i, c, value) {
  for (i = 2; i <= length(text); i++) {
    c = substr(text, i, 1)
    if (c == "\"") break
    if (c != "\\") { value = value c; continue }
    c = substr(text, ++i, 1)
    if (c == "t") value = value "\t"
    else if (c == "u") { value = value "?"; i += 4 }
    else if (c != "n") value = value c
  }
  used = i
  return value
}

{
  rest = $0
  sub(/^[ \t]*(-[ \t]+)*/, "", rest)
  # A plain scalar of a list: all of the line.
  if ($0 ~ /^[ \t]*-[ \t]/ && rest !~ /^["'[{]/) { take(rest); next }
  # Else the strings of the line: quoted, or plain between brackets, braces and commas.
  plain = ""
  while (rest != "") {
    c = substr(rest, 1, 1)
    if (c == "\"" && plain ~ /^[ \t]*([^ \t]*:[ \t]*)?$/) { take(quoted(rest)); rest = substr(rest, used + 1); plain = "" }
    else if (c == "'" && plain ~ /^[ \t]*([^ \t]*:[ \t]*)?$/) {
      rest = substr(rest, 2); i = index(rest, "'")
      take(substr(rest, 1, i ? i - 1 : length(rest))); rest = i ? substr(rest, i + 1) : ""; plain = ""
    }
    else if (c ~ /[][{},]/) { take(plain); plain = ""; rest = substr(rest, 2) }
    else { plain = plain c; rest = substr(rest, 2) }
  }
  sub(/^[ \t]*[a-z_-]+:[ \t]+/, "", plain)
  take(plain)
}
