# What buildah does by itself.

check_buildah_from_run_commit() {
    local container how
    for how in --network=none --isolation=chroot; do
        container=$(buildah from box)
        buildah run "$how" "$container" -- sh -ec 'echo hi > /hi; rm /bin/yes; rm -r /usr; mkdir /usr; echo x > /usr/f; chown 5:6 /hi'
        buildah config --env A=b --cmd 'cat /hi' "$container"
        buildah commit -q "$container" committed
        buildah rm "$container" >/dev/null
        is "what is there ($how)" "hi b 5:6 f" "$(in_image committed 'echo $(cat /hi) $A $(stat -c %u:%g /hi) $(ls /usr; ls /bin/yes 2>/dev/null)')"
        podman rmi -f committed >/dev/null
    done
}

check_buildah_copy_and_add() {
    local container
    mkdir dir && echo a >dir/a && chmod 600 dir/a && tar -cf dir.tar dir
    container=$(buildah from box)
    buildah copy -q --chown 5:6 "$container" dir /copied
    buildah add -q "$container" dir.tar /added
    is "copied and added" "5:6 600 a" "$(buildah run --network=none "$container" -- sh -c 'echo $(stat -c "%u:%g %a" /copied/a) $(cat /added/dir/a)')"
    buildah rm "$container" >/dev/null
}

check_buildah_mount_in_unshare() {
    local container
    container=$(buildah from box)
    buildah unshare sh -ec 'm=$(buildah mount '"$container"'); echo hey > $m/hey; rm $m/bin/yes; mv $m/usr $m/moved'
    # The namespace in which it was mounted is left: the next mount of it must go on.
    is "what was written" "hey moved" "$(buildah run --isolation chroot "$container" -- sh -c 'echo $(cat /hey) $(ls -d /moved /usr /bin/yes 2>/dev/null | tr -d /)')"
    buildah commit -q "$container" mounted
    buildah rm "$container" >/dev/null
    is "committed" hey "$(in_image mounted 'cat /hey')"
    podman rmi -f mounted >/dev/null
}

check_buildah_bud_and_cache() {
    printf 'FROM box\nRUN echo 1 > /1\nRUN mv /usr /elsewhere; rm /1\n' >Containerfile
    buildah bud -q --network=none --layers -t budded . >/dev/null
    buildah bud --network=none --layers -t again . >log 2>&1
    is "steps from the cache" 2 "$(grep -c 'Using cache' log)"
    is "what is there" share "$(in_image again 'ls /elsewhere; ls -d /1 /usr 2>/dev/null || true')"
    podman rmi -f budded again >/dev/null
}

check_buildah_overlay_volumes() {
    mkdir vol && echo old >vol/file
    printf 'FROM box\nRUN cat /v/file && echo new > /v/file && rm /v/file && cp /bin/busybox /v/ && echo ok > /built\n' >Containerfile
    buildah bud -q --network=none -v "$PWD/vol:/v:O" -t volumes . >/dev/null
    is "outside" "old file" "$(cat vol/file) $(ls vol)"
    is "inside" ok "$(in_image volumes 'cat /built')"
    podman rmi -f volumes >/dev/null
}

check_buildah_several_at_once() {
    local n
    for n in 1 2 3 4; do
        mkdir "$n"
        printf 'FROM box\nRUN echo %s > /n; rm -r /usr; mkdir /usr\nRUN for f in $(seq 50); do echo $f > /usr/$f; done; mv /usr /moved\n' "$n" >"$n/Containerfile"
        buildah bud -q --network=none -t "parallel$n" "$n" >"log$n" 2>&1 &
    done
    wait
    for n in 1 2 3 4; do
        is "of build $n" "$n 50" "$(in_image "parallel$n" 'echo $(cat /n) $(ls /moved | wc -l)')"
        podman rmi -f "parallel$n" >/dev/null
    done
}

check_buildah_from_scratch() {
    local container
    mkdir dir && echo a >dir/a
    container=$(buildah from scratch)
    buildah unshare sh -ec 'm=$(buildah mount '"$container"'); mkdir $m/bin $m/etc; cp /bin/busybox $m/bin; ln $m/bin/busybox $m/bin/sh
        ln -s nowhere $m/l; chown 5:6 $m/etc; chmod 2775 $m/etc; mkfifo $m/p; echo gone > $m/gone; rm $m/gone'
    buildah copy -q --chown 7:8 "$container" dir /copied
    buildah config --cmd /bin/sh "$container"
    buildah commit -q "$container" scratched
    buildah rm "$container" >/dev/null
    is "the image" "2 nowhere 5:6 2775 fifo 7:8 a" \
        "$(in_image scratched 'busybox stat -c %h /bin/sh; busybox readlink /l; busybox stat -c "%u:%g %a" /etc; busybox stat -c %F /p
            busybox stat -c %u:%g /copied/a; busybox cat /copied/a; busybox cat /gone 2>/dev/null || true' | xargs)"
    podman rmi -f scratched >/dev/null
}
