# What a bare Debian machine must have before the program can be built, mounted and tested.
# Sourced by the scripts. Root installs what is missing; anybody else is told what root would install.

# Where an ordinary user of Debian does not look: chroot, mkfs, losetup.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# Colours for people, plain text for files and pipes.
bold= red= yellow= green= cyan= plain=
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' red=$'\e[1;31m' yellow=$'\e[1;33m' green=$'\e[32m' cyan=$'\e[36m' plain=$'\e[0m'
fi

say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

loud() { printf '\n%s!! %s%s\n' "$yellow" "$*" "$plain" >&2; }

die() {
    printf '\n%s%s: %s%s\n' "$red" "${0##*/}" "$*" "$plain" >&2
    exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

apt_lists_fresh=
apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" </dev/null
}

# The package lists, once in a run: a bare image ships none, and an old one names files that are gone.
apt_update_once() {
    [ -n "$apt_lists_fresh" ] && return
    apt_get update || die "apt-get update failed: look at the network and at /etc/apt/sources.list*"
    apt_lists_fresh=yes
}

# need COMMAND=PACKAGE... : a command, or an absolute path, that must exist, and the package that brings it.
need() {
    local pair missing=()
    for pair in "$@"; do
        case $pair in
            /*) [ -e "${pair%%=*}" ] || missing+=("${pair#*=}") ;;
            *) command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}") ;;
        esac
    done
    [ "${#missing[@]}" -eq 0 ] && return
    is_root || die "missing here, and only root can install them:
    apt-get install --no-install-recommends ${missing[*]}"
    say "Installing what is missing: ${missing[*]}"
    apt_update_once
    apt_get install -y --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get install ${missing[*]} failed"
}

# A Rust that is new enough: the user's own, or else one that rustup puts below the target directory, where `cargo clean`
# removes it again; nothing else on the machine changes.
need_rust() {
    local want own installer
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    rust_is_at_least "$want" && return
    own=$(target_directory)/rust
    installer=$own/rustup-init.sh
    export CARGO_HOME=$own/cargo RUSTUP_HOME=$own/rustup
    PATH=$CARGO_HOME/bin:$PATH
    rust_is_at_least "$want" && return
    need curl=curl /etc/ssl/certs/ca-certificates.crt=ca-certificates
    say "There is no Rust $want or newer: putting one into $own (rustup, some 700 MB)"
    mkdir -p "$own"
    curl --proto '=https' --tlsv1.2 -sSf -o "$installer" https://static.rust-lang.org/rustup/rustup-init.sh &&
        sh "$installer" -y --quiet --no-modify-path --profile minimal --component clippy --component rustfmt \
            </dev/null >"$own/rustup.log" 2>&1 ||
        die "Rust $want or newer is missing and cannot be fetched: look at the network and at $own/rustup.log, or
    install it yourself: https://rustup.rs"
}

rust_is_at_least() {
    local have
    have=$(cargo --version 2>/dev/null && rustc --version 2>/dev/null) || return
    printf '%s\n%s\n' "$1" "$(cut -d' ' -f2 <<<"${have##*$'\n'}")" | sort -V -C
}

# The device must exist and this user must be able to open it.
need_fuse_device() {
    local host="Load the module on the host (modprobe fuse); give a container the device (--device /dev/fuse)."
    if [ ! -e /dev/fuse ] && is_root; then
        modprobe fuse 2>/dev/null || mknod -m 666 /dev/fuse c 10 229 || die "there is no /dev/fuse. $host"
    fi
    [ -e /dev/fuse ] || die "there is no /dev/fuse. $host"
    [ -r /dev/fuse ] && [ -w /dev/fuse ] || die "this user cannot open /dev/fuse. As root: chmod 666 /dev/fuse"
    (: <>/dev/fuse) 2>/dev/null || die "/dev/fuse cannot be opened. $host"
    # Without it, as after debootstrap, fusermount3 unmounts for nobody but root.
    if [ ! -e /etc/mtab ] && is_root; then
        say "There is no /etc/mtab, which fusermount3 reads: linking it to /proc/self/mounts"
        ln -sfn ../proc/self/mounts /etc/mtab
    fi
}

need_user_namespace() {
    unshare --user --map-root-user --mount true 2>/dev/null ||
        die "this user cannot make a user namespace here: run this as root"
}

target_directory() { realpath -m "${CARGO_TARGET_DIR:-target}"; }

# fetch_package NAME DIR : leaves NAME_*.deb in DIR, and keeps it there for the next run. Without package lists,
# root gets the machine's, anybody else private ones below DIR, so that no right is needed.
fetch_package() {
    local name=$1 dir=$2
    local download=(-o APT::Sandbox::User=root download "$name")
    compgen -G "$dir/${name}_*.deb" >/dev/null && return
    mkdir -p "$dir"
    (cd "$dir" && apt_get "${download[@]}" >/dev/null 2>&1) && return
    if is_root; then
        apt_update_once
        (cd "$dir" && apt_get "${download[@]}") || die "apt-get download $name failed"
        return
    fi
    local private=(-o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir/cache")
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    (cd "$dir" && {
        apt_get "${private[@]}" update && apt_get "${private[@]}" "${download[@]}"
    } >apt.log 2>&1) || die "apt-get download $name failed: see $dir/apt.log"
}

# unpack_package NAME CACHE DIR : the files of a fetched package, without its maintainer scripts. They belong to
# whoever unpacks them: a user namespace has no other owner to give them.
unpack_package() {
    local packages=("$2/$1"_*.deb)
    dpkg-deb --fsys-tarfile "${packages[0]}" | tar --extract --no-same-owner --same-permissions --directory "$3"
}

# program_of VARIABLE NAME VERSION FOR_WHAT : a program from the registry that Debian does not have, unless VARIABLE
# already names one. Fails if it cannot be built.
program_of() {
    local variable=$1 name=$2 version=$3 purpose=$4
    [ -z "${!variable:-}" ] || return 0
    local root program
    root=$(target_directory)/programs
    program=$root/$name-$version/bin/$name
    if [ ! -x "$program" ]; then
        say "Installing $name $version into $root, $purpose"
        cargo install --locked --quiet --root "$root/$name-$version" "$name" --version "$version" || return
    fi
    export "$variable=$program"
}
