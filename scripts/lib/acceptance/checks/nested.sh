# Containers in a container of podman: the program serves the root of the outer one, and inside it those of the inner ones.

given_an_image_with_podman() {
    podman import -q -c CMD=bash "$GROUND/nested.tar" nested
    has "$(in_image nested 'podman --version')" podman
}

# nested USER COMMANDS [OPTION...] : in a container with the program, as root of it or as its user podman.
nested() {
    local user=$1 commands=$2
    shift 2
    local who=user conf=/home/podman/.config/containers
    [ "$user" != root ] || who=root conf=/etc/containers
    /mnt/lib/block "$who storage.conf" /mnt/containers.md | sed "s|/usr/local/bin/plyfs|/usr/local/bin/${PROGRAM##*/}|" >storage.conf
    [ "$NAME" != kernel ] || sed -i /mount_program/d storage.conf
    /mnt/lib/block "$who containers.conf" /mnt/containers.md >containers.conf
    podman run --rm --network=none "${device[@]}" --user "$user" -v "$GROUND:/ground:ro" \
        -v "$PROGRAM:/usr/local/bin/${PROGRAM##*/}:ro" -v "$PWD/storage.conf:$conf/storage.conf:ro" \
        -v "$PWD/containers.conf:$conf/containers.conf:ro" "$@" nested bash -euc "$inner_work
            $commands"
}

device=(--device /dev/fuse)

# What is done in the inner containers; podman of the image has no pseudo-terminals or limits of its own to set.
inner_work='
    [ "$(id -u)" = 0 ] || export XDG_RUNTIME_DIR=$(mktemp -d)
    run() { podman run --rm --network=none "$@"; }
    is_of_type() { [ "$1" = "$2" ] || { echo "the type of the inner root is $1"; exit 1; }; }
    work() {
        podman import -q -c CMD=sh /ground/busybox.tar box >/dev/null
        is_of_type "$(run box awk "\$5 == \"/\" { sub(/.* - /, \"\"); print \$1 }" /proc/self/mountinfo)" "$1"
        podman run --name c --network=none box sh -ec "
            rm /bin/yes; rm -r /usr; mkdir /usr; echo x > /usr/f; ln /usr/f /g; chown 5:6 /g; chmod 4711 /g; mkfifo /p; mv /var /moved"
        podman commit -q c committed >/dev/null
        printf "FROM committed\nRUN rm /g; echo built > /usr/built\n" > /tmp/Containerfile
        podman build -q --network=none --layers -t built -f /tmp/Containerfile /tmp >/dev/null
        run built sh -ec "[ ! -e /bin/yes ]; echo \$(ls /usr; stat -c %u:%g:%a /usr/f; ls -d /moved /var /g 2>/dev/null)"
        podman rm -f -a >/dev/null
        podman rmi -f -a >/dev/null
    }'
inner_result="built f 5:6:4711 /moved"
type_of_root() { [ "$NAME" = kernel ] && echo overlay || echo "fuse.${PROGRAM##*/}"; }

full_podman_in_podman() {
    is "inside" "$inner_result" "$(nested root "work $(type_of_root)" --privileged -v /var/lib/containers)"
}

# The upper directories of the inner unions are in the outer union.
check_podman_in_podman_on_the_root_of_the_outer_one() {
    # It has no overlays upon those of its own that are somebody else's.
    [ "$NAME" != kernel ] || return 0
    is "inside" "$inner_result" "$(nested root "work $(type_of_root)" --privileged)"
}

check_podman_of_a_user_in_podman() {
    is "inside" "$inner_result" "$(nested podman "work $(type_of_root)" --privileged -v /home/podman/.local)"
}

# With the rights that it takes to mount, and nothing else: parts of /proc are covered or read-only, and no other can be
# mounted, so that only a build without namespaces works.
check_build_in_podman_with_a_masked_proc() {
    is "inside" "built f 5:6:4711 /moved $(type_of_root)" "$(nested root '
        podman import -q -c CMD=sh /ground/busybox.tar box >/dev/null
        { echo FROM box
            echo "RUN rm /bin/yes; rm -r /usr; mkdir /usr; echo x > /usr/f; ln /usr/f /g; chown 5:6 /g; chmod 4711 /g; mv /var /moved"
            echo "RUN rm /g; echo built > /usr/built"; } >/tmp/Containerfile
        podman build -q --network=host --layers --isolation chroot -t built -f /tmp/Containerfile /tmp >/dev/null
        cd "$(podman image mount built)"
        [ ! -e bin/yes ]; echo $(ls usr; stat -c %u:%g:%a usr/f; ls -d moved var g 2>/dev/null | sed s:^:/:; findmnt -n -o FSTYPE .)
        cd /; podman image umount built >/dev/null' --cap-add sys_admin --cap-add mknod --security-opt seccomp=unconfined -v /var/lib/containers)"
}

full_podman_in_podman_with_an_unmasked_proc() {
    is "inside" "$inner_result" "$(nested root "work $(type_of_root)" --cap-add sys_admin --cap-add net_admin --cap-add mknod \
        --security-opt seccomp=unconfined --security-opt unmask=ALL -v /var/lib/containers)"
}

# The line of the program comes through podman.
check_podman_without_the_device_says_so() {
    [ "$NAME" = plyfs ] || return 0
    device=()
    has "$(refused nested root 'podman import -q -c CMD=sh /ground/busybox.tar box; podman run box true' --cap-add sys_admin \
        --security-opt seccomp=unconfined -v /var/lib/containers)" \
        'plyfs: /dev/fuse: does not exist; load the module \(modprobe fuse\), or give the container the device \(--device /dev/fuse\)'
}
