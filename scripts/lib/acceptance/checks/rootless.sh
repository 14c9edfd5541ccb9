# docker of an ordinary user: dockerd in the namespaces of rootlesskit.
. /mnt/lib/docker.sh

rootless_up() {
    dockerd_up rootlesskit --net=host --copy-up=/etc --copy-up=/run --propagation=rslave /mnt/lib/rootless-dockerd
}

given_an_image_of_busybox_for_rootless_docker() {
    rootless_up
    docker import -c 'CMD ["sh"]' "$GROUND/busybox.tar" box
}

check_rootless_docker_run() {
    rootless_up
    has "$(docker info --format '{{.Driver}} {{.SecurityOptions}}')" "^$([ "$NAME" = kernel ] && echo overlay2 || echo fuse-overlayfs) .*rootless"
    has "$(box "grep ' / / ' /proc/self/mountinfo")" "$([ "$NAME" = kernel ] && echo overlay || echo fuse.fuse-overlayfs)"
    is "owners" "1 2" "$(box 'echo x > /1; chown 1:2 /1; echo $(stat -c "%u %g" /1)')"
}

check_rootless_docker_commit_and_diff() {
    rootless_up
    start one box
    docker exec one sh -ec 'rm /bin/yes; rm -r /usr; mkdir /usr; echo x > /usr/f; ln /usr/f /g; chown 5:6 /g; chmod 4711 /g; mkfifo /p'
    has "$(docker diff one)" '^D /bin/yes'
    docker exec one sh -c "$LISTING" >before
    docker commit one committed >/dev/null
    in_image committed "$LISTING" >after
    diff before after
    docker rm -f one >/dev/null
    docker rmi -f committed >/dev/null
}

check_rootless_docker_build_save_load_and_prune() {
    rootless_up
    printf 'FROM box\nRUN echo 1 > /1; rm /bin/yes\nRUN rm -r /usr; mkdir /usr; ln /1 /usr/2\nCOPY Dockerfile /usr/\n' >Dockerfile
    DOCKER_BUILDKIT=0 docker build --network=none -q -t built .
    docker save -o built.tar built
    docker rmi built >/dev/null
    docker load -q -i built.tar
    is "loaded" "1 Dockerfile" "$(in_image built '[ ! -e /bin/yes ]; cat /usr/2; rm /usr/2; ls /usr' | xargs)"
    docker rmi built >/dev/null
    docker system prune -f >/dev/null
    is "what is left" 1 "$(docker images -aq | wc -l)"
}

check_rootless_docker_kill_of_the_daemon() {
    local pid
    [ "$NAME" != kernel ] || return 0
    rootless_up
    start one box
    docker exec one sh -c 'echo kept | dd of=/kept conv=fsync; rm /bin/yes' 2>/dev/null
    pid=$(pgrep -f -- "$(merged one)\$")
    [ "$(wc -w <<<"$pid")" = 1 ]
    kill -9 "$pid"
    has "$(refused docker exec one /bin/cat /kept)" 'endpoint is not connected|connection abort'
    docker kill one >/dev/null
    docker start one >/dev/null
    is "what was synced" kept "$(docker exec one sh -c 'cat /kept; ls /bin/yes 2>/dev/null || true')"
}
