# What is left when somebody is killed.

check_kill_of_a_container() {
    start c box
    podman exec c sh -c 'echo kept > /kept; sync; rm /bin/yes'
    podman kill -s KILL c >/dev/null
    podman wait c >/dev/null
    podman start c >/dev/null
    is "after the kill" kept "$(podman exec c sh -c 'cat /kept; ls /bin/yes 2>/dev/null || true')"
}

check_kill_of_podman() {
    local client
    podman run --name c --network=none box sh -c 'echo kept > /kept; sync; echo up > /up; while :; do sleep 1; done' &
    client=$!
    eventually podman exec c test -e /up
    kill -9 "$client"
    wait "$client" || true
    is "it runs on" kept "$(podman exec c cat /kept)"
    podman restart -t 0 c >/dev/null
    is "after a restart" kept "$(podman exec c cat /kept)"
}

check_kill_of_conmon() {
    start c box
    podman exec c sh -c 'echo kept > /kept; sync'
    kill -9 "$(podman inspect c --format '{{.State.ConmonPid}}')"
    is "it runs on" kept "$(podman exec c cat /kept)"
    podman rm -f -t 0 c >/dev/null
}

check_kill_of_the_daemon() {
    local pid
    [ "$NAME" != kernel ] || return 0
    start c box
    podman exec c sh -c 'echo kept | dd of=/kept conv=fsync 2>/dev/null; rm /bin/yes'
    pid=$(daemon c)
    [ "$(wc -w <<<"$pid")" = 1 ]
    kill -9 "$pid"
    has "$(refused podman exec c cat /kept)" 'endpoint is not connected'
    podman kill c >/dev/null || podman stop -t 0 c >/dev/null
    podman wait c >/dev/null
    podman start c >/dev/null
    is "what was synced" kept "$(podman exec c sh -c 'cat /kept; ls /bin/yes 2>/dev/null || true')"
    podman commit -q c survivor >/dev/null
    is "committed" kept "$(in_image survivor 'cat /kept')"
    podman rmi -f survivor >/dev/null
}

# With `supervise` nobody in the container hears of it.
check_kill_of_a_supervised_daemon() {
    local pids pid
    [ "$NAME" = plyfs ] || return 0
    sed '/^mount_program/a mountopt = "supervise"' ~/.config/containers/storage.conf >storage.conf
    export CONTAINERS_STORAGE_CONF=$PWD/storage.conf
    podman run -d --name c --network=none box sh -c 'exec 3>>/log; while :; do echo alive >&3 || exit 1; sleep 0.1; done' >/dev/null
    podman exec c sh -c 'echo kept > /kept; rm /bin/yes'
    for _ in 1 2 3; do
        pids=$(daemon c)
        [ "$(wc -w <<<"$pids")" = 2 ]
        pid=$(ps -o pid= --ppid "$(echo "$pids" | paste -sd,)" | tr -d ' ')
        kill -9 "$pid"
        eventually test ! -e "/proc/$pid"
        is "what is there" kept "$(podman exec c sh -c 'cat /kept; ls /bin/yes 2>/dev/null || true')"
        podman exec c sh -c 'ls /proc/self/status /dev/null && truncate -s 0 /log' >/dev/null
        eventually podman exec c grep -q alive /log
    done
    podman rm -f -t 0 c >/dev/null
    eventually not_served "$pids"
}
not_served() { ! ps -p "$(echo "$1" | paste -sd,)" >/dev/null; }

# Who waits for a program that stands still, as before a suspend of the machine, waits alone: no other container, no sync(2).
check_stop_and_continuation_of_the_daemon() {
    local reader
    [ "$NAME" != kernel ] || return 0
    start c box
    start other box
    podman exec c sh -c 'echo written > /written'
    stopped=$(daemon c)
    kill -STOP "$stopped"
    timeout 120 podman exec other sh -c 'echo x > /x; sync'
    timeout 120 sync
    timeout 120 podman run --rm --network=none box true
    podman exec c sh -c 'cat /written; rm /written; ls /written 2>/dev/null' >late &
    reader=$!
    kill -CONT "$stopped"
    wait "$reader" || true
    is "what is read afterwards" written "$(cat late)"
}
stopped=
finished() { [ -z "$stopped" ] || kill -CONT "$stopped" 2>/dev/null || true; }

check_end_of_the_session() {
    local session
    setsid bash -c 'podman run -d --name c --network=none box sh -c "trap : HUP; echo up > /up; while :; do sleep 1; done" >/dev/null
        touch started; sleep 1000' &
    session=$!
    eventually test -e started
    kill -HUP -- "-$session"
    kill -KILL -- "-$session" 2>/dev/null || true
    wait "$session" || true
    eventually podman exec c test -e /up
    is "written afterwards" x "$(podman exec c sh -c 'echo x > /x; cat /x')"
}

# Directories and links in the storage.
stored() {
    local root run
    root=$(podman info --format '{{.Store.GraphRoot}}') run=$(podman info --format '{{.Store.RunRoot}}')
    podman unshare find "$root/overlay" "$root/overlay-containers" "$run" -mindepth 1 -maxdepth 2 \( -type d -o -type l \) | sort
}

check_unmounting_leaves_nothing() {
    local pid before
    before=$(stored)
    start c box
    podman exec c sh -ec 'rm -r /usr; mkdir /usr; mv /var /moved; chmod 0 /moved'
    in_image box 'rm -r /usr' --userns=keep-id --user 0
    podman cp "$GROUND/busybox.tar" c:/
    pid=$(daemon c || true)
    podman rm -f -t 0 c >/dev/null
    # Whatever it served is unmounted, so it ends by itself.
    for pid in $pid; do
        eventually test ! -e "/proc/$pid"
    done
    lacks "$(podman unshare cat /proc/self/mountinfo)" '/merged '
    is "what is stored" "$before" "$(stored)"
}

check_mounting_again_at_once() {
    local turn
    start c box
    for turn in 1 2 3 4 5 6; do
        podman restart -t 0 c >/dev/null
        podman exec c sh -c "echo $turn > /turn"
        is "the turn" "$turn" "$(podman exec c cat /turn)"
    done
}
