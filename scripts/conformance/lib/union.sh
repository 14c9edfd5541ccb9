# A union for a suite of somebody else to run in. Sourced by the scripts beside this folder, all of which are called with
# the path of the built suite, end with one line of figures, and fail if anything in the suite or in the daemon did.
#
#   ON=plyfs        what is put under test: plyfs, kernel (its overlay filesystem), plain (no union at all), or the path
#                   of a program with the command line of fuse-overlayfs
#   PLYFS=PROGRAM   default target/release/plyfs
#   OPTIONS=...     further mount options
#   SCRATCH=DIR     where the layers lie, default /var/tmp; the filesystem there is part of the test
#   LOG=FILE        where the suite's own output is kept

. "$(dirname "${BASH_SOURCE[0]}")/../../lib/machine.sh"

is_root || die "the suites change owners and mount: run this as root"

# In namespaces of its own: whatever an aborted suite leaves mounted or running ends with them.
# What others unmount goes here too: a copy of their mount would keep their daemon alive.
if [ -z "${CONFORMANCE_NAMESPACE:-}" ]; then
    export CONFORMANCE_NAMESPACE=yes
    exec unshare --mount --propagation slave --pid --fork --kill-child --mount-proc "$0" "$@"
fi

project=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../../..")
suite=${0##*/}
ON=${ON:-plyfs}
PLYFS=$(realpath --canonicalize-missing "${PLYFS:-$project/target/release/plyfs}")
[ "$ON" != plyfs ] || [ -x "$PLYFS" ] || die "there is no $PLYFS: cargo build --release, or name a program with PLYFS="

place=$(mktemp -d "${SCRATCH:-/var/tmp}/plyfs-conformance.XXXXXX")
chmod 755 "$place"
merged=$place/merged
log=${LOG:-$place/log}
daemon=
mkdir "$merged" "$place"/{upper,work}

# What a script has to take away besides; redefined by those that have.
let_go() { :; }

leave() {
    local status=$?
    trap - EXIT
    cd /
    let_go || loud "something is left behind"
    umount --lazy "$merged" 2>/dev/null || true
    [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
    wait || true
    rm -rf --one-file-system "$place"
    exit "$status"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# union LOWER... : mounts the directories (top first, made if need be; one empty one if none) and one upper layer.
union() {
    local lower layers=() joined
    for lower in "${@:-$place/lower}"; do
        mkdir -p "$lower"
        layers+=("$lower")
    done
    joined=$(IFS=: && echo "${layers[*]}")
    local options=lowerdir=$joined,upperdir=$place/upper,workdir=$place/work${OPTIONS:+,$OPTIONS}
    case $ON in
        plain) mount --bind "$place/upper" "$merged" ;;
        kernel) mount -t overlay overlay "$merged" -o "$options" ;;
        plyfs) serve "$PLYFS" "$options" ;;
        *) serve "$ON" "$options" ;;
    esac
}

# In the foreground, so that its end, its log and its memory can be seen.
serve() {
    local deadline=$((SECONDS + 20))
    "$1" -f -o "$2" "$merged" 2>"$place/daemon.log" &
    daemon=$!
    until mountpoint -q "$merged"; do
        kill -0 "$daemon" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ] || die "$1 does not mount:
$(cat "$place/daemon.log")"
        sleep 0.05
    done
}

# Makes the program under test what mount(8) calls for `-t fuse.plyfs`, in this namespace only.
be_mount_helper() {
    need /sbin/mount.fuse=fuse3
    mount --bind "$PLYFS" "$(realpath /sbin/mount.fuse)"
}

# Resident memory of the daemon in KiB; nothing where there is none.
memory() { [ -z "$daemon" ] || awk '/^VmRSS/ {print $2}' "/proc/$daemon/status"; }

# Unmounts; fails if the mount is still busy, the daemon does not end well, or it had something to say.
end_union() {
    local status=0
    ! mountpoint -q "$merged" || umount "$merged" || return 1
    [ -n "$daemon" ] || return 0
    wait "$daemon" || status=$?
    daemon=
    [ "$status" -eq 0 ] || loud "the daemon ended with status $status"
    [ ! -s "$place/daemon.log" ] || { loud "the daemon wrote:" && cat "$place/daemon.log" >&2; } || true
    [ "$status" -eq 0 ] && [ ! -s "$place/daemon.log" ]
}

# summary PASSED FAILED SKIPPED [WORDS...] : the last line. What the daemon got wrong is a failure too.
summary() {
    local passed=$1 failed=$2 skipped=$3
    shift 3
    end_union || failed=$((failed + 1))
    echo "$suite on ${ON##*/}: $passed passed, $failed failed, $skipped skipped${*:+ ($*)}"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}
