# What containerd's fuse-overlayfs snapshotter calls, which is not a package: the helper mount.fuse3 with its arguments, in
# their order, and fusermount3. And containerd itself, with the real snapshotter where that is.

# helped TARGET OPTION... : mounts as containerd does for the type fuse3.fuse-overlayfs. Its pipe must come to an end.
helped() {
    local target=$1 option arguments=() said
    shift
    for option; do
        arguments+=(-o "$option")
    done
    mkdir -p "$HOME/names"
    ln -sfn "$PROGRAM" "$HOME/names/fuse-overlayfs"
    said=$(PATH=$HOME/names:$PATH timeout 20 mount.fuse3 overlay "$target" "${arguments[@]}" -t fuse-overlayfs 2>&1) ||
        fail "mount.fuse3: $said"
    has "$(grep " $target " /proc/self/mountinfo)" ' - fuse'
}

# released TARGET : unmounts, and waits for the end of the program.
released() {
    fusermount3 -u "$1"
    lacks "$(cat /proc/self/mountinfo)" " $1 "
    eventually no_program "$1"
}
no_program() { ! pgrep -f -- "fuse-overlayfs .*$1( |\$)" >/dev/null; }

# snapshot ID active|committed : its directories.
snapshot() {
    mkdir -p "snapshots/$1/fs"
    [ "$2" = committed ] || mkdir -p -m 711 "snapshots/$1/work"
}

# prepared ID TARGET PARENT... : mounts an active snapshot; its nearest parent first.
prepared() {
    local id=$1 target=$2 parent lower=
    shift 2
    for parent; do
        lower+=${lower:+:}$PWD/snapshots/$parent/fs
    done
    snapshot "$id" active
    helped "$target" "workdir=$PWD/snapshots/$id/work" "upperdir=$PWD/snapshots/$id/fs" "lowerdir=$lower" "${more[@]}"
}
more=()

check_containerd_probe() {
    [ "$NAME" != kernel ] || return 0
    mkdir lower1 lower2 merged
    helped "$PWD/merged" "lowerdir=$PWD/lower2:$PWD/lower1"
    has "$(refused touch merged/file)" 'Read-only file system'
    released "$PWD/merged"
    rm -r lower1 lower2 merged
}

check_containerd_snapshots() {
    [ "$NAME" != kernel ] || return 0
    mkdir target
    # The first layer is unpacked into a bind mount, those above through the program.
    snapshot 1 active
    tar -C snapshots/1/fs -xf "$GROUND/busybox.tar"
    prepared 2 "$PWD/target" 1
    rm target/bin/yes
    rm -r target/usr
    mkdir target/usr
    echo two >target/usr/two
    chown 5:6 target/usr/two
    mknod target/null c 1 3
    released "$PWD/target"
    prepared 3 "$PWD/target" 2 1
    echo three >>target/usr/two
    mv target/etc target/moved
    released "$PWD/target"
    # A view: nothing to write to.
    helped "$PWD/target" "lowerdir=$PWD/snapshots/3/fs:$PWD/snapshots/2/fs:$PWD/snapshots/1/fs"
    is "the view" "two three two 5:6" "$(echo $(cat target/usr/two; ls target/usr; stat -c %u:%g target/usr/two; ls target/etc target/bin/yes 2>/dev/null))"
    [ -c target/null ] && [ -e target/moved/passwd ]
    has "$(refused touch target/file)" 'Read-only file system'
    released "$PWD/target"
}

check_containerd_snapshot_of_130_layers() {
    [ "$NAME" != kernel ] || return 0
    local layer parents=()
    mkdir target
    for layer in $(seq 130); do
        snapshot "$layer" committed
        echo "$layer" >"snapshots/$layer/fs/of-$layer"
        echo "$layer" >snapshots/"$layer"/fs/top
        parents=("$layer" "${parents[@]}")
    done
    prepared 131 "$PWD/target" "${parents[@]}"
    is "the union" "130 131" "$(echo $(cat target/top; ls target | wc -l))"
    rm target/of-1
    released "$PWD/target"
    is "afterwards" 130 "$(prepared 131 "$PWD/target" "${parents[@]}"; ls target | wc -l)"
    released "$PWD/target"
}

# Versions before 1.0 of the snapshotter give this option of fuse-overlayfs always.
check_containerd_with_writeback_off() {
    [ "$NAME" != kernel ] || return 0
    mkdir target
    snapshot 1 committed
    more=(writeback=0)
    prepared 2 "$PWD/target" 1
    echo x >target/x
    is "the upper" x "$(cat snapshots/2/fs/x)"
    released "$PWD/target"
}

check_containerd_runs_a_container() {
    [ "$NAME" != kernel ] || return 0
    mkdir -p bundle/rootfs
    snapshot 1 committed
    tar -C snapshots/1/fs -xf "$GROUND/busybox.tar"
    snapshot 2 committed
    prepared 3 "$PWD/bundle/rootfs" 2 1
    is "inside" "1" "$(chroot bundle/rootfs /bin/sh -ec 'echo 1 > /1; rm /bin/yes; cat /1')"
    # The target of a snapshot is mounted again by containerd after the end of its program.
    kill -9 "$(pgrep -f -- "fuse-overlayfs .*$PWD/bundle/rootfs")"
    has "$(refused cat bundle/rootfs/1)" 'endpoint is not connected|connection abort'
    released "$PWD/bundle/rootfs"
    helped "$PWD/bundle/rootfs" "workdir=$PWD/snapshots/3/work" "upperdir=$PWD/snapshots/3/fs" "lowerdir=$PWD/snapshots/2/fs:$PWD/snapshots/1/fs"
    is "again" 1 "$(chroot bundle/rootfs /bin/sh -ec '[ ! -e /bin/yes ]; cat /1')"
    released "$PWD/bundle/rootfs"
}

# containerd_up : starts containerd with the configuration of the document, in directories of the check.
containerd_up() {
    mkdir -p "$HOME/names"
    ln -sfn "$PROGRAM" "$HOME/names/fuse-overlayfs"
    export PATH=$HOME/names:$PATH CONTAINERD_ADDRESS=$PWD/containerd.sock
    /mnt/lib/block 'containerd config.toml' /mnt/containers.md >config.toml
    containerd --config config.toml --address "$CONTAINERD_ADDRESS" --root "$PWD/root" --state "$PWD/state" >containerd.log 2>&1 &
    containerd_pid=$!
    eventually ctr version >/dev/null 2>&1
}
containerd_pid= snapshotter_pid=
finished() {
    local pid
    for pid in $containerd_pid $snapshotter_pid; do
        kill "$pid"
        wait "$pid" || true
    done
    lacks "$(cat /proc/self/mountinfo)" "fuse-overlayfs.* $PWD/"
}

check_containerd_takes_the_configuration() {
    [ "$NAME" != kernel ] || return 0
    containerd_up
    has "$(ctr plugins ls)" 'io.containerd.snapshotter.v1 +fuse-overlayfs +.* ok'
}

full_containerd_with_the_real_snapshotter() {
    local said top
    [ "$NAME" != kernel ] && [ -x /usr/local/bin/containerd-fuse-overlayfs-grpc ] || return 0
    podman import -q "$GROUND/busybox.tar" box
    podman run --name one --network=none box /bin/sh -ec 'rm /bin/yes; echo 1 > /1'
    podman commit -q one one
    podman run --name two --network=none one /bin/sh -ec 'rm -r /usr; mkdir /usr; echo 2 > /usr/2; ln /usr/2 /hard'
    podman commit -q two image
    podman save -q -o image.tar image
    containerd_up
    # The commands of the document; the first one goes on in the background.
    /mnt/lib/block 'containerd commands' /mnt/containers.md >commands
    sed -n '/^containerd-fuse-overlayfs-grpc/s| /var/lib.*| "$PWD/snapshots"|p' commands >snapshotter
    sed -i '1s/^/exec /' snapshotter
    sh snapshotter >snapshotter.log 2>&1 &
    snapshotter_pid=$!
    eventually test -S /run/containerd-fuse-overlayfs.sock
    sed -i '/^containerd-fuse-overlayfs-grpc/d' commands
    # runc wants the processor's controller, which cannot be had where another hierarchy has it.
    grep -qw cpu /sys/fs/cgroup/cgroup.controllers || sed -i '/^ctr run/d' commands
    said=$(sh -ex commands) || fail "$said"
    has "$said" 'fuse-overlayfs .* ok'
    ! grep -q '^ctr run' commands || has "$said" ' / / .* - fuse.fuse-overlayfs '
    # A container's snapshot by hand: over the layer that no other one is over.
    top=$(ctr snapshots --snapshotter fuse-overlayfs ls | awk 'NR > 1 { keys[$1]; below[$2] } END { for (k in keys) if (!(k in below)) print k }')
    ctr snapshots --snapshotter fuse-overlayfs prepare hand "$top"
    mkdir target
    helped "$PWD/target" "$(ctr snapshots --snapshotter fuse-overlayfs mounts "$PWD/target" hand | sed 's/.* -o //')"
    is "inside" "1 2 2 2" "$(chroot target /bin/sh -ec '[ ! -e /bin/yes ]; echo $(cat /1 /usr/2 /hard; stat -c %h /hard)')"
    released "$PWD/target"
    ctr snapshots --snapshotter fuse-overlayfs rm hand
}
