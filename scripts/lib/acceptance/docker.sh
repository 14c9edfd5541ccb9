# A dockerd with the program as its driver fuse-overlayfs, as long as one check runs; its storage stays for the next.
# Sourced by the checks of docker.

docker_run=/run/$NAME-docker-$(id -u)
docker_log=$HOME/dockerd.log
docker_pid=
export DOCKER_HOST=unix://$docker_run/docker.sock DOCKER_CONFIG=$HOME/.docker

# What is the same in both is asked for as in the checks of podman.
podman() { docker "$@"; }

# dockerd_up [COMMAND...] : starts dockerd, by a command that leads into its namespaces; the PATH names the program.
dockerd_up() {
    mkdir -p "$HOME/names" "$docker_run"
    [ "$NAME" = kernel ] || ln -sfn "$PROGRAM" "$HOME/names/fuse-overlayfs"
    /mnt/lib/block 'docker daemon.json' /mnt/containers.md >"$HOME/daemon.json"
    [ "$NAME" != kernel ] || echo '{}' >"$HOME/daemon.json"
    PATH=$HOME/names:$PATH "$@" dockerd --config-file "$HOME/daemon.json" --host "$DOCKER_HOST" --data-root "$HOME/docker" \
        --exec-root "$docker_run/exec" --pidfile "$docker_run/pid" --iptables=false --ip6tables=false --bridge=none \
        --cgroup-parent "/$NAME-docker" \
        >>"$docker_log" 2>&1 &
    docker_pid=$!
    eventually docker_answers
}

docker_answers() {
    kill -0 "$docker_pid" 2>/dev/null || fail "dockerd ended: $(tail -n 5 "$docker_log")"
    docker version >/dev/null 2>&1
}

# At the end of a check: its containers, the daemon, and then whatever is still mounted.
finished() {
    local containers
    [ -n "$docker_pid" ] || return 0
    containers=$(docker ps -aq)
    [ -z "$containers" ] || docker rm -f $containers >/dev/null
    kill "$docker_pid"
    wait "$docker_pid" || true
    [ ! -e "/sys/fs/cgroup/$NAME-docker" ] || rmdir "/sys/fs/cgroup/$NAME-docker"
    lacks "$(cat /proc/self/mountinfo)" "$HOME/docker/.*/merged"
    eventually served_by_nobody
}

# Whatever the program served is unmounted, so it ends by itself.
served_by_nobody() { ! pgrep -f -- "$HOME/docker/.*/merged\$" >/dev/null; }

# merged CONTAINER : where its root is mounted.
merged() { docker inspect "$1" --format '{{.GraphDriver.Data.MergedDir}}'; }
