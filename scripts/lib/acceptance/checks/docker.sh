# docker as root, with the program as its driver fuse-overlayfs.
. /mnt/lib/docker.sh

given_an_image_of_busybox_for_docker() {
    dockerd_up
    docker import -c 'CMD ["sh"]' "$GROUND/busybox.tar" box
}

check_docker_run() {
    dockerd_up
    has "$(docker info --format '{{.Driver}}')" "$([ "$NAME" = kernel ] && echo overlay2 || echo fuse-overlayfs)"
    has "$(box "grep ' / / ' /proc/self/mountinfo")" "$([ "$NAME" = kernel ] && echo overlay || echo fuse.fuse-overlayfs)"
    is "twice" "1 2" "$(box 'echo 1 > /1; echo 2 > /2; echo $(cat /1 /2)')"
}

check_docker_stop_start_and_exec() {
    dockerd_up
    start one box
    docker exec one sh -c 'echo kept > /kept; rm /bin/yes; mv /usr /moved'
    docker stop -t 0 one >/dev/null
    docker start one >/dev/null
    is "after the start" "kept share" "$(docker exec one sh -c 'echo $(cat /kept; ls /moved; ls /bin/yes /usr 2>/dev/null)')"
}

check_docker_copy() {
    dockerd_up
    start one box
    mkdir -p d/e
    echo text >d/e/f
    ln d/e/f d/g
    docker cp d one:/d
    is "in the container" "text text" "$(docker exec one sh -c 'echo $(cat /d/e/f /d/g)')"
    docker exec one sh -c 'echo more >> /d/g'
    docker cp one:/d back
    is "from the container" "text more" "$(echo $(cat back/g))"
}

check_docker_diff() {
    dockerd_up
    start one box
    docker exec one sh -c 'rm /bin/yes; echo x > /new; mkdir /d; echo y > /d/f; echo more >> /etc/passwd'
    is "the changes" "A /d
A /d/f
A /new
C /bin
C /etc
C /etc/passwd
D /bin/yes" "$(docker diff one | LC_ALL=C sort)"
}

check_docker_commit_keeps_everything() {
    dockerd_up
    start one box
    docker exec one sh -ec 'rm /bin/yes; rm -r /usr; mkdir /usr; echo x > /usr/f; ln /usr/f /g; chown 5:6 /g; chmod 4711 /g
        mkfifo /p; mknod /null c 1 3; mknod /disk b 7 200; ln -s nowhere /s; chmod 1777 /usr'
    docker exec one sh -c "$LISTING" >before
    docker commit one committed >/dev/null
    in_image committed "$LISTING" >after
    diff before after
    has "$(cat after)" '/null character special file'
    docker rm -f one >/dev/null
    docker rmi -f committed >/dev/null
}

check_docker_build() {
    dockerd_up
    printf 'FROM box\nRUN echo 1 > /1; rm /bin/yes\nRUN rm /1; rm -r /usr; mkdir /usr; echo new > /usr/new\nCOPY Dockerfile /usr/\n' >Dockerfile
    DOCKER_BUILDKIT=0 docker build --network=none -q -t built .
    is "built" "Dockerfile new" "$(in_image built 'echo $(ls -d /1 /bin/yes 2>/dev/null) $(ls /usr)')"
    docker rmi -f built >/dev/null
}

check_docker_save_load_and_prune() {
    dockerd_up
    printf 'FROM box\nRUN rm /bin/yes; echo 1 > /1\nRUN mkdir /d; ln /1 /d/2\n' >Dockerfile
    DOCKER_BUILDKIT=0 docker build --network=none -q -t saved .
    docker save -o saved.tar saved
    docker rmi saved >/dev/null
    docker system prune -f >/dev/null
    refused docker image inspect saved >/dev/null
    docker load -q -i saved.tar
    is "loaded" "1 1" "$(in_image saved '[ ! -e /bin/yes ]; echo $(cat /1 /d/2)')"
    docker rmi saved >/dev/null
    docker system prune -f >/dev/null
    is "what is left" 1 "$(docker images -aq | wc -l)"
    [ "$NAME" = kernel ] || is "layers that are left" 1 "$(find "$HOME/docker/fuse-overlayfs" -mindepth 1 -maxdepth 1 ! -name l | wc -l)"
}

check_docker_concurrent_containers() {
    local turn pids=() pid
    dockerd_up
    for turn in 1 2 3 4 5 6; do
        in_image box "echo $turn > /turn; rm /bin/yes; cat /turn" >"$turn" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid"
    done
    is "all" "1 2 3 4 5 6" "$(echo $(cat [1-6]))"
}

check_docker_kill_of_the_daemon() {
    local pid
    dockerd_up
    [ "$NAME" != kernel ] || return 0
    start one box
    docker exec one sh -c 'echo kept | dd of=/kept conv=fsync; rm /bin/yes' 2>/dev/null
    pid=$(pgrep -f -- "$(merged one)\$")
    [ "$(wc -w <<<"$pid")" = 1 ]
    kill -9 "$pid"
    has "$(refused docker exec one /bin/cat /kept)" 'endpoint is not connected|connection abort'
    docker kill one >/dev/null
    docker start one >/dev/null
    is "what was synced" kept "$(docker exec one sh -c 'cat /kept; ls /bin/yes 2>/dev/null || true')"
    docker commit one survivor >/dev/null
    is "committed" kept "$(in_image survivor 'cat /kept')"
    docker rm -f one >/dev/null
    docker rmi -f survivor >/dev/null
}

# The mounts of running containers are those of the next dockerd.
check_docker_kill_of_dockerd() {
    dockerd_up
    start one box
    docker exec one sh -c 'echo kept > /kept; rm /bin/yes'
    kill -9 "$docker_pid"
    wait "$docker_pid" || true
    rm -f "$docker_run/pid"
    dockerd_up
    docker start one >/dev/null
    is "afterwards" kept "$(docker exec one sh -c 'cat /kept; ls /bin/yes 2>/dev/null || true')"
}
