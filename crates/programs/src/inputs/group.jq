[inputs] | group_by(.name) | map({
  name: .[0].name,
  count: length,
  ids: map(.id),
  words: (map(.text | split(" ")) | add | unique | length)
}) | sort_by(-.count, .name) | .[:40][]
