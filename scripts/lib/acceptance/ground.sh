# What the images of the acceptance run are made of, so that the checks need no network. Sourced by scripts/acceptance.

# Installed by checks with apt-get, out of its cache.
quick_packages=(figlet libcap2-bin sqlite3 git python3-venv)
full_packages=("${quick_packages[@]}" gcc libc6-dev postgresql python3-pip npm)
# What an image needs that runs containers itself.
nested_packages=(podman crun uidmap fuse3 acl attr libcap2-bin)

# ground DIR [quick] : debian.tar, a minimal system with its lists of packages; debs, the packages; nested.tar, the same
# system with podman; busybox.tar; layers.tar, an image of 126 layers. What is there stays.
ground() {
    local dir=$1 packages=("${full_packages[@]}")
    [ -z "${2:-}" ] || packages=("${quick_packages[@]}")
    mkdir -p "$dir/debs"
    [ -e "$dir/debian.tar" ] || debian "$dir"
    [ -e "$dir/debs/all" ] || { [ -n "${2:-}" ] && [ -e "$dir/debs/quick" ]; } || {
        say "Fetching packages to install in containers"
        in_debian "$dir" apt-get install -qq --download-only --no-install-recommends "${packages[@]}" >/dev/null
        cp "$dir"/tree/var/cache/apt/archives/*.deb "$dir/debs"
        touch "$dir/debs/${2:-all}"
    }
    [ -e "$dir/nested.tar" ] || nested "$dir"
    [ -e "$dir/busybox.tar" ] || busybox_tar "$dir"
    [ -e "$dir/layers.tar" ] || python3 scripts/lib/acceptance/layers.py 126 "$dir/layers.tar"
}

debian() {
    local dir=$1 suite
    say "Making a minimal Debian (debootstrap)"
    suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
    rm -rf "$dir/tree"
    debootstrap --variant=minbase "$suite" "$dir/tree" >"$dir/debootstrap.log" || die "see $dir/debootstrap.log"
    in_debian "$dir" apt-get update -qq
    in_debian "$dir" apt-get clean
    tar -C "$dir/tree" --numeric-owner --xattrs -cf "$dir/debian.part" .
    mv "$dir/debian.part" "$dir/debian.tar"
}

# Installed here, not by a check: to start containers in it must not need that apt-get works on the union.
nested() {
    local dir=$1 tree=$1/nested/tree
    say "Making an image with podman"
    rm -rf "$dir/nested"
    mkdir "$dir/nested"
    cp -a "$dir/tree" "$tree"
    in_debian "$dir/nested" apt-get install -qq --no-install-recommends "${nested_packages[@]}" >"$dir/nested.log" 2>&1 ||
        die "see $dir/nested.log"
    in_debian "$dir/nested" apt-get clean
    in_debian "$dir/nested" useradd --create-home --uid 1000 podman
    in_debian "$dir/nested" install -d -o podman -g podman /home/podman/.config /home/podman/.config/containers
    # What is left of the ids that a container has, in which the user has the 1000.
    printf 'podman:1:999\npodman:1001:64000\n' | tee "$tree/etc/subuid" >"$tree/etc/subgid"
    tar -C "$tree" --numeric-owner --xattrs --xattrs-include='*' -cf "$dir/nested.part" .
    mv "$dir/nested.part" "$dir/nested.tar"
    rm -rf "$dir/nested"
}

in_debian() {
    local tree=$1/tree
    shift
    DEBIAN_FRONTEND=noninteractive chroot "$tree" "$@"
}

busybox_tar() {
    local tree=$1/busybox applet
    mkdir -p "$tree"/{bin,etc,root,tmp,var,usr/share}
    chmod 1777 "$tree/tmp"
    cp "$(command -v busybox)" "$tree/bin/busybox"
    for applet in $(busybox --list); do
        [ "$applet" = busybox ] || ln -sf busybox "$tree/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n' >"$tree/etc/passwd"
    printf 'root:x:0:\nuser:x:1000:\n' >"$tree/etc/group"
    tar -C "$tree" --owner=0 --group=0 --numeric-owner -cf "$1/busybox.part" .
    mv "$1/busybox.part" "$1/busybox.tar"
}
