# The same programs as root, with the configuration for root.

given_an_image_of_busybox_for_root() {
    podman import -q -c CMD=sh "$GROUND/busybox.tar" box
}

check_root_run() {
    has "$(box "grep ' / / ' /proc/self/mountinfo")" "$([ "$NAME" = kernel ] && echo overlay || echo "fuse.${PROGRAM##*/}")"
}

check_root_commit_keeps_everything() {
    start c box
    podman exec c sh -ec 'rm /bin/yes; rm -r /usr; mkdir /usr; echo x > /usr/f; ln /usr/f /g; chown 5:6 /g; chmod 4711 /g; mkfifo /p; mknod /null c 1 3; mknod /disk b 7 200'
    podman exec c sh -c "$LISTING" >before
    podman commit -q c committed
    in_image committed "$LISTING" >after
    diff before after
    has "$(cat after)" '/null character special file'
    has "$(podman diff c)" '^D /bin/yes'
    podman rm -f -t 0 c >/dev/null
    podman rmi -f committed >/dev/null
}

check_root_build() {
    printf 'FROM box\nRUN echo 1 > /1; rm /bin/yes\nRUN rm /1; rm -r /usr; mkdir /usr; echo new > /usr/new\n' >Containerfile
    podman build -q --isolation chroot --layers -t built .
    is "built" "new" "$(in_image built 'echo $(ls -d /1 /bin/yes 2>/dev/null) $(ls /usr)')"
    podman rmi -f built >/dev/null
}

check_root_buildah() {
    local container
    container=$(buildah from box)
    echo text >"$(buildah mount "$container")/file"
    buildah run --isolation chroot "$container" sh -c 'cat /file; rm /bin/yes'
    buildah umount "$container"
    buildah commit -q "$container" frommount
    buildah rm "$container" >/dev/null
    is "the file" text "$(in_image frommount '[ ! -e /bin/yes ]; cat /file')"
    podman rmi -f frommount >/dev/null
}

# in_cgroup GROUP COMMAND... : a command and all that it starts.
in_cgroup() {
    mkdir -p "/sys/fs/cgroup/$1"
    sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "/sys/fs/cgroup/$@"
}

# As the service manager ends a service or a session: nobody who began in it is left, conmon and the program neither.
check_root_end_of_the_callers_cgroup() {
    local group=$NAME-caller
    in_cgroup "$group" podman run -d --name c --network=none box sh -c 'echo kept | dd of=/kept conv=fsync; rm /bin/yes; echo up > /up; sleep 1000' >/dev/null
    eventually podman exec c test -e /up
    echo 1 >"/sys/fs/cgroup/$group/cgroup.kill"
    eventually rmdir "/sys/fs/cgroup/$group"
    # podman 4.3 takes such a container for a running one until the machine is started anew; its layer is whole, and not in use.
    [ "$NAME" = kernel ] || umount "$(podman inspect c --format '{{.GraphDriver.Data.MergedDir}}')"
    podman commit -q c survivor >/dev/null
    is "what was synced" kept "$(in_image survivor 'cat /kept; ls /bin/yes 2>/dev/null || true')"
    podman rm -f -t 0 c >/dev/null
    podman rmi -f survivor >/dev/null
}

# A suspend of the machine freezes the container and the program that serves it at any moment; sync(2) comes with it.
check_root_freeze_and_thaw() {
    local group=$NAME-frozen turn
    in_cgroup "$group" podman run -d --name c --network=none box sh -c '
        n=0; while [ ! -e /stop ]; do n=$((n + 1)); echo $n > /n; cp /bin/busybox /copy; rm /copy; done; echo $n > /end; sleep 1000' >/dev/null
    eventually podman exec c test -e /n
    for turn in 1 2 3 4 5; do
        echo 1 >"/sys/fs/cgroup/$group/cgroup.freeze"
        timeout 120 sync
        is "another" "$turn" "$(timeout 120 podman run --rm --network=none box echo "$turn")"
        echo 0 >"/sys/fs/cgroup/$group/cgroup.freeze"
        podman exec c cat /n >seen
    done
    podman exec c touch /stop
    eventually podman exec c test -s /end
    is "the last turn" "$(podman exec c cat /end)" "$(podman exec c cat /n)"
    podman rm -f -t 0 c >/dev/null
    eventually rmdir "/sys/fs/cgroup/$group"
}

# Both names of the attribute; ordinary users have the second one, for what is neither a device nor a FIFO.
check_root_owners_modes_and_devices_in_attributes() {
    local option line
    [ "$NAME" != kernel ] || return 0
    for option in xattr_permissions=1 xattr_permissions=2; do
        mkdir low up work m
        echo k >low/k
        "$PROGRAM" -o "lowerdir=low,upperdir=up,workdir=work,$option" m
        echo x >m/file && chown 5:6 m/file && chmod 4711 m/file && mkdir -m 2770 m/dir && chown 7:8 m/dir && echo in >m/dir/in
        mknod m/null c 1 3 && mknod -m 640 m/disk b 7 200 && mkfifo -m 622 m/p && chown 1:2 m/p && ln -s file m/link
        ln m/file m/hard && chown 9:10 m/k && chmod 600 m/k
        attributes >listed
        for line in "file regular file 4711 5:6 0:0" "dir directory 2770 7:8 0:0" "null character special file 644 0:0 1:3" \
            "disk block special file 640 0:0 7:c8" "p fifo 622 1:2 0:0" "k regular file 600 9:10 0:0"; do
            grep -qxF "$line" listed || fail "no \"$line\" in: $(cat listed)"
        done
        is "on disk" "regular file" "$(stat -c %F up/null up/disk | sed 's/ empty//' | sort -u)"
        umount m
        "$PROGRAM" -o "lowerdir=low,upperdir=up,workdir=work,$option" m
        attributes | diff listed -
        mv m/dir m/moved
        is "the directory that was moved" "2770 7:8" "$(stat -c '%a %u:%g' m/moved)"
        umount m
        rm -r low up work m
    done
}
attributes() { (cd m && stat -c '%n %F %a %u:%g %t:%T' *); }
