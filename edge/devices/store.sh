# The device's half of the store (edge/devices/store.py has the other): sh -c "$(cat store.sh)" store VERB ROOT ...
#
# Only what Debian's coreutils, busybox and Android's toybox all have. Nothing here trusts that the last run
# ended well: whatever a power cut or a kill leaves is either complete, or not looked at.
#
#   lock  lock.owner      held by whoever changes something
#   blobs/sha256-HEX      a file by what is in it; HEX.part is one that is still coming
#   bundles/ID/           hard links into blobs/ (symbolic ones where the system has no others)
#   refs/ID               what ID consists of: a line "HEX MODE PATH" for each file, MODE - or x (may be executed)
#   refs/ID.start         how it is started; refs/ID.packs: a line for each pack it needs; refs/PACK.pack: as refs/ID
#   refs/ID.start.new     and ID.packs.new: another way to start it, which has still to prove itself
#   packs/PACK/           a runtime, unpacked
#   current  previous     -> bundles/ID
#   refs/ID.untested      it was put here where it could not run, and tests itself when it is started first
#   bin/edge-chat         talks to what is current: for whoever sits at the device
#   bin/edge-act          lets what is current act, for the same
#   state/                what acting keeps: its journal, its log, its memory
#   bin/edge-serve        serves what is current: what the service starts
#   served                on which address and port, where there is a service
set -u
verb=$1 root=$2
shift 2

# Exit codes that store.py knows. 73 not the lock's owner, 74 cannot be written, 75 busy or elsewhere,
# 76 damaged, 77 not there.
fail() { code=$1; shift; echo "$*" >&2; exit "$code"; }
everything() { sync -f "$root" 2>/dev/null || sync; } # the filesystem, where sync can tell one from another
flush() { sync "$@" 2>/dev/null || sync; }
size() { if [ -e "$1" ]; then stat -c %s "$1"; else echo 0; fi; }
digest() { set -- $(sha256sum < "$1"); echo "$1"; }
target() { if [ -L "$root/$1" ]; then t=$(readlink "$root/$1"); echo "${t##*/}"; fi; }
owned() { [ "$(cat "$root/lock.owner" 2>/dev/null)" = "$1" ] || fail 73 "the lock of $root is not ours any more"; }

# Where mv has no -T, there is an instant without the link; `current` is then what current.new says.
point() {
  rm -f "$root/$1.new"
  ln -s "bundles/$2" "$root/$1.new" || fail 74 "$root cannot be written"
  flush "$root"
  if ! mv -fT "$root/$1.new" "$root/$1" 2>/dev/null; then
    rm -f "$root/$1" && mv -f "$root/$1.new" "$root/$1" || fail 74 "$root/$1 cannot be written"
  fi
  flush "$root"
}
settle() {
  for name in current previous; do
    if [ -L "$root/$name.new" ] && [ ! -L "$root/$name" ]; then mv -f "$root/$name.new" "$root/$name"; fi
    rm -f "$root/$name.new"
  done
}
link() { # HEX FILE DEPTH
  up=../..; case $3 in */*) rest=$3; while [ "$rest" != "${rest#*/}" ]; do up=../$up rest=${rest#*/}; done ;; esac
  ln "$root/blobs/sha256-$1" "$2" 2>/dev/null || ln -s "$up/blobs/sha256-$1" "$2" || fail 74 "$2 cannot be written"
}
fill() { # FOLDER, lines on stdin; what is there already is replaced one by one
  while IFS= read -r line; do
    hex=${line%% *} rest=${line#* }
    mode=${rest%% *} path=${rest#* }
    [ -e "$root/blobs/sha256-$hex" ] || fail 77 "blob $hex is not there"
    case $path in */*) [ -d "$1/${path%/*}" ] || mkdir -p "$1/${path%/*}" || fail 74 "$1 cannot be written" ;; esac
    [ "$mode" = x ] && chmod 555 "$root/blobs/sha256-$hex"
    if [ -e "$1/$path" ] || [ -L "$1/$path" ]; then
      [ "$1/$path" -ef "$root/blobs/sha256-$hex" ] && continue
      rm -f "$root/link.new"
      link "$hex" "$root/link.new" "$path"
      mv -f "$root/link.new" "$1/$path" || fail 74 "$1 cannot be written"
    else link "$hex" "$1/$path" "$path"; fi
  done
}
listed() { # FILE N, lines on stdin: a link that breaks looks like their end, so they are counted
  cat > "$1.new" || fail 74 "$1 cannot be written"
  [ "$(wc -l < "$1.new")" -eq "$2" ] || { rm -f "$1.new"; fail 73 "a list of files did not arrive whole"; }
  mv -f "$1.new" "$1" || fail 74 "$1 cannot be written"
}
gone() { # ID
  rm -rf "$root/bundles/$1" "$root/refs/$1"
  for name in packs packs.new start start.new untested; do rm -f "$root/refs/$1.$name"; done
}
each_bundle() { # the ids that there are lines of
  for ref in "$root"/refs/*; do
    case $ref in *.packs | *.pack | *.start | *.untested | *.new | *\*) ;; *) echo "${ref##*/}" ;; esac
  done
}

# A link to it from a folder of PATH works too. What cannot be written now is written at the next change.
command_for() { # NAME VERB
  mkdir -p "$root/bin" 2>/dev/null || return 0
  printf '%s\n' "#!$(command -v sh)" \
    'here=$(readlink -f "$0") && root=${here%/bin/*} || exit 1' \
    'now=$(readlink "$root/current") || now=$(readlink "$root/current.new")' \
    '[ -n "$now" ] || { echo "edge: nothing is installed in $root" >&2; exit 4; }' \
    'now=$root/refs/${now##*/}' \
    'if [ -e "$now.untested" ]; then said=$(sh "$now.start" selftest 2>&1) || { echo "$said" >&2; exit 1; }; fi' \
    'rm -f "$now.untested"' \
    "exec sh \"\$now.start\" $2 \"\$@\"" \
    > "$root/bin/$1.new" 2>/dev/null && chmod 755 "$root/bin/$1.new" && mv -f "$root/bin/$1.new" "$root/bin/$1" || :
}

case $verb in
inventory)
  place=$root
  while [ ! -e "$place" ] && [ "$place" != / ] && [ "$place" != . ]; do place=$(dirname "$place"); done
  df -Pk "$place" | { read -r _; read -r _ _ _ free _; echo "free $free"; }
  [ -d "$root" ] || exit 0
  cd "$root" || fail 74 "$root cannot be entered"
  echo "root $(pwd -P)"
  root=.
  for name in current previous; do
    if [ -L $name ]; then echo "$name $(target $name)"; elif [ -L $name.new ]; then echo "$name $(target $name.new)"; fi
  done
  stat -c 'file %s %n' blobs/sha256-* 2>/dev/null
  for name in bundles/*; do
    [ -d "$name" ] || continue
    id=${name#bundles/} started=-
    [ -f "refs/$id.start" ] && started=$(digest "refs/$id.start")
    echo "bundle $id $started"
  done
  for name in packs/*; do [ -d "$name" ] && echo "pack ${name#packs/}"; done
  [ -f key ] && echo "key $(cat key)"
  [ -f served ] && echo "served $(cat served)"
  [ -f serials ] && while read -r line; do echo "serial $line"; done < serials
  exit 0
  ;;
hold) # TOKEN: holds the lock as long as somebody writes a byte every few seconds
  mkdir -p "$root/blobs" "$root/bundles" "$root/refs" "$root/packs" || fail 74 "$root cannot be written"
  command -v flock > /dev/null || fail 69 "there is no flock"
  {
    flock -n 9 || fail 75 "$(cat "$root/lock.owner" 2>/dev/null)"
    printf %s "$1" > "$root/lock.owner" || fail 74 "$root cannot be written"
    settle
    command_for edge-chat ask
    command_for edge-act alone
    command_for edge-serve listen
    rm -rf "$root"/bundles/.new-* "$root"/bundles/.old-* "$root"/packs/.new-* "$root"/incoming
    echo held
    # busybox's timeout leaves a watchdog behind for a second: it must not hold the lock.
    while [ -n "$(timeout 30 head -c 1 9>&-)" ]; do :; done
    if [ "$(cat "$root/lock.owner" 2>/dev/null)" = "$1" ]; then rm -f "$root/lock.owner"; fi
  } 9>> "$root/lock"
  ;;
put) # TOKEN HEX SIZE OFFSET, bytes on stdin
  owned "$1"
  part=$root/blobs/sha256-$2.part
  have=$(size "$part")
  [ "$4" = 0 ] || [ "$have" = "$4" ] || fail 75 "$have"
  if [ "$4" = 0 ]; then
    found=$(tee "$part" | sha256sum) # hashed while it comes: as fast as the link
  else
    cat >> "$part" || fail 74 "$(df -Pk "$root" | { read -r _; read -r _ _ _ free _; echo "$free KiB are free"; })"
    found=$(sha256sum < "$part")
  fi
  have=$(size "$part")
  [ "$have" = "$3" ] || fail 74 "$have of $3 bytes arrived"
  [ "${found%% *}" = "$2" ] || { rm -f "$part"; fail 76 "what arrived is not $2"; }
  flush "$part"
  owned "$1"
  chmod 444 "$part" && mv -f "$part" "$root/blobs/sha256-$2" || fail 74 "$root/blobs cannot be written"
  flush "$root/blobs"
  ;;
several) # TOKEN, a tar of small files named sha256-HEX on stdin
  owned "$1"
  rm -rf "$root/incoming"
  mkdir "$root/incoming" && tar -xf - -C "$root/incoming" || fail 74 "$root/incoming cannot be written"
  cd "$root/incoming" || fail 74 "$root/incoming cannot be entered"
  sha256sum sha256-* | while read -r hex name; do
    [ "sha256-$hex" = "$name" ] || fail 76 "what arrived is not $name"
  done || exit 76
  everything
  chmod 444 sha256-* && mv -f sha256-* ../blobs/ || fail 74 "$root/blobs cannot be written"
  everything
  ;;
unpack) # TOKEN PACK HEX N, N lines on stdin: small files come from the tar HEX, which is not needed after that
  owned "$1"
  new=$root/packs/.new-$2
  rm -rf "$new"
  listed "$root/refs/$2.pack" "$4"
  mkdir "$new" && tar -xf "$root/blobs/sha256-$3" -C "$new" || fail 74 "$new cannot be written"
  fill "$new" < "$root/refs/$2.pack"
  (cd "$new" && find . -type f ! -name .sums -exec sha256sum {} + > .sums) || fail 74 "$new cannot be written"
  everything
  mv "$new" "$root/packs/$2" || fail 74 "$root/packs cannot be written"
  rm -f "$root/blobs/sha256-$3"
  everything
  ;;
stage) # TOKEN ID START N PACK..., N lines on stdin
  owned "$1"
  id=$2 new=$root/bundles/.new-$2
  listed "$root/refs/$id" "$4"
  printf %s "$3" > "$root/refs/$id.start.new" || fail 74 "$root/refs cannot be written"
  shift 4
  for pack; do
    [ -d "$root/packs/$pack" ] || fail 77 "pack $pack is not there"
    echo "$pack"
  done > "$root/refs/$id.packs.new"
  rm -rf "$new"
  if [ -d "$root/bundles/$id" ]; then fill "$root/bundles/$id" < "$root/refs/$id"
  else
    mkdir "$new" || fail 74 "$new cannot be written"
    fill "$new" < "$root/refs/$id"
    everything
    mv "$new" "$root/bundles/$id" || fail 74 "$root/bundles cannot be written"
  fi
  everything
  ;;
switch) # TOKEN ID
  owned "$1"
  [ -f "$root/bundles/$2/edge.json" ] || fail 77 "bundle $2 is not there"
  rm -f "$root/refs/$2.untested"
  for name in start packs; do # in this order a cut between them leaves the packs of both
    [ ! -f "$root/refs/$2.$name.new" ] || mv -f "$root/refs/$2.$name.new" "$root/refs/$2.$name" ||
      fail 74 "$root/refs cannot be written"
  done
  flush "$root/refs"
  was=$(target current)
  [ "$was" != "$2" ] || exit 0
  if [ -n "$was" ] && [ -d "$root/bundles/$was" ]; then point previous "$was"; fi
  point current "$2"
  [ -f "$root/current/edge.json" ] || { [ -n "$was" ] && point current "$was"; fail 74 "$root/current leads nowhere"; }
  ;;
rollback) # TOKEN
  owned "$1"
  now=$(target current) was=$(target previous)
  [ -n "$was" ] && [ "$was" != "$now" ] && [ -f "$root/bundles/$was/edge.json" ] || fail 77 "there is nothing to go back to"
  point current "$was"
  if [ -n "$now" ]; then point previous "$now"; fi
  echo "$was"
  ;;
remove) # TOKEN ID...: bundles, and what only they needed
  owned "$1"
  shift
  for id; do
    for name in current previous; do [ "$(target $name)" = "$id" ] && rm -f "$root/$name"; done
    flush "$root"
    gone "$id"
  done
  for pack in "$root"/packs/*; do
    [ -d "$pack" ] || continue
    grep -qs "^${pack##*/}\$" "$root"/refs/*.packs "$root"/refs/*.packs.new || rm -rf "$pack" "$root/refs/${pack##*/}.pack"
  done
  for blob in "$root"/blobs/sha256-*; do
    [ -e "$blob" ] || continue
    hex=${blob##*/sha256-}
    grep -qs "^${hex%.part} " "$root"/refs/* || { echo "gone $hex $(size "$blob")"; rm -f "$blob"; }
  done
  everything
  ;;
fsck) # says what is wrong, one line each; changes nothing
  cd "$root" || fail 77 "there is no store at $root"
  root=.
  for blob in blobs/sha256-*; do
    case $blob in *.part | *\*) continue ;; esac
    hex=${blob#blobs/sha256-}
    [ "$(digest "$blob")" = "$hex" ] || echo "damaged $hex"
  done
  for id in $(each_bundle); do
    [ -d "bundles/$id" ] || { echo "torn $id"; continue; }
    while IFS= read -r line; do
      hex=${line%% *} rest=${line#* }
      file=bundles/$id/${rest#* }
      if [ ! -e "blobs/sha256-$hex" ]; then echo "missing $hex $id"
      elif [ ! "$file" -ef "blobs/sha256-$hex" ]; then echo "unlinked $id"; fi
    done < "refs/$id"
    [ ! -f "refs/$id.packs" ] ||
      while read -r pack; do [ -d "packs/$pack" ] || echo "unpacked $pack $id"; done < "refs/$id.packs"
  done
  for name in bundles/*; do
    [ -d "$name" ] && [ ! -f "refs/${name#bundles/}" ] && echo "torn ${name#bundles/}"
  done
  for pack in packs/*; do
    [ -d "$pack" ] || continue
    (cd "$pack" && sha256sum -c .sums > /dev/null 2>&1) || echo "spoilt ${pack#packs/}"
  done
  for name in current previous; do
    id=$(target $name)
    if [ -n "$id" ] && [ ! -f "bundles/$id/edge.json" ]; then echo "dangling $name $id"
    elif [ -n "$id" ] && [ ! -s "refs/$id.start" ]; then echo "unstarted $id"; fi
  done
  exit 0
  ;;
mend) # TOKEN: damaged blobs and packs named on stdin go; links are made anew; torn bundles go
  owned "$1"
  while read -r what name rest; do
    case $what in
    damaged) rm -f "$root/blobs/sha256-$name" ;;
    spoilt) rm -rf "$root/packs/$name" ;;
    torn) gone "$name" ;;
    unlinked) (fill "$root/bundles/$name" < "$root/refs/$name") || : ;;
    dangling) rm -f "$root/$name" ;;
    esac
  done
  everything
  ;;
relink) # TOKEN: every bundle's files are what is among the blobs now
  owned "$1"
  for id in $(each_bundle); do (fill "$root/bundles/$id" < "$root/refs/$id") || exit; done
  everything
  ;;
pin) # TOKEN KEY NAME SERIAL: whose bundles this device takes, and how new the last one of that name was
  owned "$1"
  if [ -n "$2" ]; then echo "$2" > "$root/key.new" && mv -f "$root/key.new" "$root/key"; else rm -f "$root/key"; fi
  { grep -sv "^$3 " "$root/serials"; [ -z "$4" ] || echo "$3 $4"; } > "$root/serials.new"
  mv -f "$root/serials.new" "$root/serials" || fail 74 "$root cannot be written"
  flush "$root/serials"
  ;;
served) # TOKEN HOST PORT, or only TOKEN when there is no service any more
  owned "$1"
  if [ $# = 1 ]; then rm -f "$root/served"; else echo "$2 $3" > "$root/served" || fail 74 "$root cannot be written"; fi
  flush "$root"
  ;;
*) fail 64 "store.sh has no $verb" ;;
esac
