# What podman does with containers and their trees.

given_an_image_of_busybox() {
    podman import -q -c CMD=sh "$GROUND/busybox.tar" box
    is "its size" "$(stat -c %s /bin/busybox)" "$(box 'stat -c %s /bin/busybox')"
}

check_podman_mounts_the_union_under_test() {
    local type
    type=$(box "awk '\$5 == \"/\" { sub(/.* - /, \"\"); print \$1 }' /proc/self/mountinfo")
    case $NAME in
        kernel) is "the type of the root" overlay "$type" ;;
        *) is "the type of the root" "fuse.${PROGRAM##*/}" "$type" ;;
    esac
}

check_podman_info_shows_the_program() {
    [ "$NAME" = kernel ] || has "$(podman info)" "Executable: $PROGRAM"
    has "$(podman info)" 'graphDriverName: overlay'
}

check_podman_exec() {
    start c box
    podman exec c sh -ec 'echo one > /root/file; mkdir /a; mv /root/file /a'
    is "the file" one "$(podman exec c cat /a/file)"
    is "the user" 1000 "$(podman exec -u user c id -u)"
    refused podman exec c cat /root/file
}

check_podman_cp() {
    mkdir -p in/sub && echo text >in/sub/file && ln -s file in/sub/link && chmod 640 in/sub/file
    start c box
    podman cp in c:/in
    is "copied in" "text file 640" "$(podman exec c sh -c 'echo $(cat /in/sub/file) $(readlink /in/sub/link) $(stat -c %a /in/sub/file)')"
    podman exec c sh -ec 'echo more >> /in/sub/file; rm /in/sub/link'
    podman cp c:/in out
    is "copied out" "$(printf 'text\nmore')" "$(cat out/sub/file)"
    [ ! -L out/sub/link ]
    podman stop -t 0 c >/dev/null
    podman cp c:/in/sub/file stopped
    cmp stopped out/sub/file
}

# Makes every kind of change in a container called c.
changes='
    echo new > /new; mkdir -p /dir/sub; echo x > /dir/sub/file; ln /dir/sub/file /dir/hard; ln -s file /dir/sub/link
    chmod 4755 /dir/hard; chown 5:6 /dir/sub/link /dir; mkfifo /dir/fifo
    rm /bin/yes; rm -r /usr; mkdir /usr; echo again > /usr/file
    mkdir /tmp/d; mv /tmp/d /tmp/e; echo "# more" >> /etc/passwd; chmod 700 /root; touch -d @1000000000 /dir/fifo'

changed='A /dir
A /dir/fifo
A /dir/hard
A /dir/sub
A /dir/sub/file
A /dir/sub/link
A /new
A /tmp/e
A /usr/file
C /bin
C /etc
C /etc/passwd
C /root
C /tmp
D /bin/yes'

# own_changes : without podman's own mountpoints, and without the directory that was made again: it is either changed or gone.
own_changes() { grep -vE '/usr$|/usr/share$| /(etc/(hosts|hostname|resolv.conf|mtab)|run.*|dev|proc|sys)$' | LC_ALL=C sort; }

check_podman_diff() {
    start c box
    podman exec c sh -ec "$changes"
    podman diff c >found
    has "$(cat found)" '^D /usr(/share)?$'
    is changes "$changed" "$(own_changes <found)"
}

check_podman_commit_keeps_everything() {
    start c box
    podman exec c sh -ec "$changes"
    podman exec c sh -c "$LISTING" >before
    podman commit -q c committed
    in_image committed "$LISTING" >after
    podman rmi -f committed >/dev/null
    diff before after
}

# The changes as the command reads them from the layers, without a mount.
check_podman_container_in_plyfs_diff() {
    local data='{{.GraphDriver.Data.UpperDir}}:{{.GraphDriver.Data.LowerDir}}' layers
    [ "$NAME" = plyfs ] || return 0
    start c box
    podman exec c sh -ec "$changes"
    IFS=: read -ra layers < <(podman inspect c --format "$data")
    podman unshare "$PROGRAM" diff "${layers[@]}" >found
    podman unshare "$PROGRAM" diff --json "${layers[@]}" >found.json
    is changes "$changed" "$(own_changes <found)"
    python3 -c 'import json; [json.loads(line) for line in open("found.json")]'
}

check_podman_image_diff() {
    start c box
    podman exec c sh -ec 'rm /bin/yes; echo x > /added; rm -r /usr; mkdir /usr'
    podman commit -q c committed
    found=$(podman image diff committed)
    podman rmi -f committed >/dev/null
    has "$found" '^A /added'
    has "$found" '^D /bin/yes'
    has "$found" '^D /usr(/share)?$'
}

check_podman_stop_and_start_again() {
    start c box
    podman exec c sh -ec 'rm -r /usr; mkdir /usr; echo kept > /usr/file; rm /bin/yes'
    for again in 1 2 3; do
        podman stop -t 0 c >/dev/null
        podman start c >/dev/null
        is "what is there" "file" "$(podman exec c sh -c 'ls /bin/yes 2>/dev/null; ls /usr')"
    done
}

check_podman_rootfs_overlay() {
    mkdir rootfs && tar -C rootfs -xf "$GROUND/busybox.tar"
    is "the new file" new "$(podman run --rm --network=none --rootfs "$PWD/rootfs:O" sh -c 'echo new > /file; cat /file')"
    [ ! -e rootfs/file ]
}

check_podman_overlay_volumes() {
    mkdir vol && echo old >vol/file && echo gone >vol/gone
    is "in the container" "$(printf 'old\nnew\nfile')" "$(box 'echo new >> /v/file; rm /v/gone; cat /v/file; ls /v' -v "$PWD/vol:/v:O")"
    is "outside" old "$(cat vol/file)"
    mkdir upper work
    box 'echo new >> /v/file; rm /v/gone; mkdir /v/d' -v "$PWD/vol:/v:O,upperdir=$PWD/upper,workdir=$PWD/work"
    is "kept in the upper directory" "$(printf 'old\nnew')" "$(cat upper/file)"
    is "the next time" "$(printf 'd\nfile')" "$(box 'ls /v' -v "$PWD/vol:/v:O,upperdir=$PWD/upper,workdir=$PWD/work")"
    podman unshare rm -rf upper work
}

check_podman_overlay_of_a_named_volume() {
    podman volume create volume >/dev/null
    box 'echo old > /v/file; echo gone > /v/gone' -v volume:/v
    is "in the container" "old new file" "$(echo $(box 'echo new >> /v/file; rm /v/gone; cat /v/file; ls /v' -v volume:/v:O))"
    is "in the volume" "old file gone" "$(echo $(box 'cat /v/file; ls /v' -v volume:/v))"
    podman volume rm volume >/dev/null
}

check_podman_read_only() {
    # podman can lose the last line of a container that ends at once.
    refused box 'touch /file 2>/said/line' --read-only -v "$PWD:/said" >/dev/null
    has "$(cat line)" 'Read-only file system'
    box 'echo x > /tmp/file; cat /bin/busybox > /dev/null' --read-only
}

check_podman_image_mounts() {
    local mount
    is "names in a mounted image" busybox "$(podman unshare sh -ec 'm=$(podman image mount box); ls $m/bin/busybox | xargs basename; podman image umount box >/dev/null')"
    is "in a container" 1 "$(box 'ls /image/bin/busybox | wc -l' --mount type=image,src=box,dst=/image)"
    is "written to" new "$(box 'echo new > /image/file; cat /image/file' --mount type=image,src=box,dst=/image,rw=true)"
}

check_podman_containers_of_one_image_at_once() {
    local n
    for n in 1 2 3 4 5 6 7 8; do
        box 'for f in $(seq 100); do echo $f > /tmp/$f; done; rm -r /usr; cat /tmp/* | wc -l' >"out$n" &
    done
    wait
    is "what they count" "$(yes 100 | head -8)" "$(cat out*)"
}

check_podman_storage_with_a_blank_in_its_path() {
    local podman=(podman --root "$PWD/odd name" --runroot "$XDG_RUNTIME_DIR/odd" --storage-opt "overlay.mount_program=$PROGRAM")
    [ "$NAME" != kernel ] || return 0
    "${podman[@]}" import -q "$GROUND/busybox.tar" box
    is "written" x "$("${podman[@]}" run --rm --network=none box sh -c 'echo x > /f; cat /f')"
    "${podman[@]}" rmi -f box >/dev/null
}

check_podman_prune_leaves_nothing() {
    local root
    root=$(podman info --format '{{.Store.GraphRoot}}')
    printf 'FROM box\nRUN echo 1 > /1\nRUN echo 2 > /2\n' >Containerfile
    podman build -q --network=none -t pruned . >/dev/null
    podman create --network=none pruned true >/dev/null
    podman tag box kept:box
    before=$(podman images -q box)
    podman rm -a >/dev/null
    podman rmi pruned >/dev/null
    podman image prune -f >/dev/null
    is "images" "$before" "$(podman images -q box)"
    ids=$(podman inspect box --format '{{len .RootFS.Layers}}')
    is "layers" 1 "$ids"
    podman untag box localhost/kept:box
    lacks "$(podman unshare find "$root/overlay" -maxdepth 2 -name merged -not -empty)" .
}

# A reset takes whatever podman has for the user: here a user's storage and runtime directory of their own.
check_podman_system_prune_and_reset() {
    local run=$XDG_RUNTIME_DIR/reset given=(--storage-opt "overlay.mount_program=$PROGRAM") pause
    [ "$NAME" != kernel ] || given=()
    mkdir -m 700 "$run"
    podman() { XDG_RUNTIME_DIR=$run command podman --root "$PWD/storage" --runroot "$run/root" "${given[@]}" "$@"; }
    podman import -q "$GROUND/busybox.tar" box
    printf 'FROM box\nRUN rm /bin/yes; rm -r /usr; mkdir /usr\nRUN echo 2 > /2\n' >Containerfile
    podman build -q --network=none --layers -t built . >/dev/null
    start c built
    podman run --name ended --network=none box true
    podman volume create volume >/dev/null
    podman system prune -a -f --volumes >/dev/null
    is "what is left" "c localhost/built:latest" "$(echo $(podman ps -a --format '{{.Names}}'; podman images --format '{{.Repository}}:{{.Tag}}' | grep -v none; podman volume ls -q))"
    is "it goes on" 2 "$(podman exec c cat /2)"
    pause=$(cat "$run/libpod/tmp/pause.pid")
    podman system reset -f >/dev/null
    [ "$NAME" = kernel ] || eventually no_program_in "$PWD/storage"
    lacks "$(cat "/proc/$pause/mountinfo" 2>/dev/null || true)" "$PWD/storage/.*/merged"
    [ ! -e storage ] || is "what is stored" "" "$(find storage -type f)"
    kill "$pause" 2>/dev/null || true
    # It would make it all again.
    unset -f podman
    rm -rf "$run"
}
no_program_in() { ! pgrep -f -- "$1/overlay/.*/merged\$" >/dev/null; }
