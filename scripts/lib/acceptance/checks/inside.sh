# Programs at work in containers of Debian.

# installs IMAGE PACKAGE... : an image of Debian with these packages, which are not fetched.
installs() {
    local image=$1
    shift
    cat >Containerfile <<-END
		FROM debian
		ENV DEBIAN_FRONTEND=noninteractive
		RUN cp /debs/*.deb /var/cache/apt/archives/ && apt-get install -y --no-install-recommends $* && apt-get clean
	END
    podman build -q --network=none -v "$GROUND/debs:/debs:ro" -t "$image" .
    is "packages that are not whole" "" "$(in_image "$image" 'dpkg --verify; dpkg --audit')"
}

# lend IMAGE, borrow IMAGE : where apt-get does not work, programs run in an image that another program has made.
lend() { [ -z "$SEVERAL" ] || [ -e "/var/tmp/$1.tar" ] || podman save -q -o "/var/tmp/$1.tar" "$1"; }
borrow() { podman image exists "$1" || [ ! -e "/var/tmp/$1.tar" ] || podman load -q -i "/var/tmp/$1.tar"; }

given_tools_installed_with_apt_get() {
    installs tools figlet libcap2-bin sqlite3 git python3-venv
    lend tools
    has "$(in_image tools 'figlet -f banner x')" '#'
}

full_apt_get_install_of_a_compiler_a_database_and_node() {
    installs everything figlet libcap2-bin sqlite3 git python3-venv gcc libc6-dev postgresql python3-pip npm
    lend everything
}

# at_work COMMANDS [IMAGE] : in a container that is started once more, to see that everything stays; the commands define
# a function work, and one called look.
at_work() {
    borrow "${2:-tools}"
    start c "${2:-tools}"
    podman exec c bash -euc "$1; cd /root; work; look"
    podman stop -t 0 c >/dev/null
    podman start c >/dev/null
    podman exec c bash -euc "$1; cd /root; look"
}

full_inside_apt_get_remove_and_install_again() {
    borrow tools
    start c tools -v "$GROUND/debs:/debs:ro"
    podman exec c bash -euc 'export DEBIAN_FRONTEND=noninteractive
        apt-get remove -y --purge figlet git
        if command -v figlet; then exit 1; fi
        cp /debs/*.deb /var/cache/apt/archives/
        apt-get install -y --no-install-recommends figlet git
        [ -z "$(dpkg --verify)" ]; git --version; figlet again' >/dev/null
}

check_inside_users_and_su() {
    at_work '
        work() { useradd -m -s /bin/bash anna; groupadd -g 4000 team; usermod -aG team anna; userdel -r nobody2 2>/dev/null || true
            echo anna:secret | chpasswd; su anna -c "echo mine > ~/file; chmod 600 ~/file"; }
        look() { [ "$(su anna -c "id -un; id -Gn")" = "$(printf "anna\nanna team")" ]; [ "$(su anna -c "cat ~/file")" = mine ]
            ! su anna -c "cat /etc/shadow" 2>/dev/null; }'
}

check_inside_set_uid_programs_and_capabilities() {
    at_work '
        work() { useradd -m anna; cp /usr/bin/id /usr/local/bin/id-as-root; chmod 4755 /usr/local/bin/id-as-root
            cp /usr/bin/cat /usr/local/bin/cat-all; setcap cap_dac_override+ep /usr/local/bin/cat-all; }
        look() { [ "$(su anna -c "id-as-root -u")" = 0 ]; [ "$(su anna -c "id -u")" != 0 ]
            getcap /usr/local/bin/cat-all | grep -q cap_dac_override=ep
            su anna -c "cat-all /etc/shadow" >/dev/null
            [ "$(stat -c %a /usr/bin/su)" = 4755 ]; }'
}

# They are for the root of the container, whichever ids it has, and so for that of every container of the image.
check_inside_capabilities_set_under_a_map() {
    local show='getcap /usr/local/bin/cat-all | grep -q cap_dac_override=ep
        setpriv --reuid 33 --regid 33 --clear-groups cat-all /etc/shadow >/dev/null'
    borrow tools
    start c tools --userns=keep-id --user 0
    podman exec c bash -euc "cp /usr/bin/cat /usr/local/bin/cat-all; setcap cap_dac_override+ep /usr/local/bin/cat-all; $show"
    podman stop -t 0 c >/dev/null
    podman commit -q c capable
    podman rm -f -t 0 c >/dev/null
    in_image capable "$show"
    in_image capable "$show" --userns=auto:size=3000
    podman rmi -f capable >/dev/null
}

check_inside_chown() {
    at_work '
        work() { chown -R -h 33:44 /usr/lib/git-core; chown -R 1:2 /var/lib/dpkg/info; }
        look() { [ -z "$(find /usr/lib/git-core ! \( -uid 33 -gid 44 \) -print -quit)" ]; [ -z "$(find /var/lib/dpkg/info ! -uid 1 -print -quit)" ]; }'
}

check_inside_tar_cp_and_rm() {
    at_work '
        work() { tar -C / -cf /root/t.tar usr/share/perl5 usr/lib/git-core; mkdir u; tar -C u -xf t.tar; cp -a /usr/share/perl5 c; cp -r --reflink=auto c d; rm -rf /usr/share/doc d; mkdir /usr/share/doc; }
        look() { diff -r --no-dereference c u/usr/share/perl5; tar -C /root/u -df t.tar; [ -z "$(ls /usr/share/doc)" ]; [ ! -e d ]; }'
}

check_inside_rename_of_directories() {
    at_work '
        work() { mv /usr/share/perl5 /usr/share/perl6; mv /usr/share/perl6 /opt/; mv /usr/lib/git-core /usr/lib/git-moved; mkdir /usr/lib/git-core; echo x > /usr/lib/git-core/x
            python3 -c "import os; os.rename(\"/usr/share/bash-completion\", \"/usr/share/renamed\"); os.rename(\"/etc/skel\", \"/etc/skeleton\")"; }
        look() { [ -d /opt/perl6 ]; [ ! -e /usr/share/perl5 ]; [ "$(ls /usr/lib/git-core)" = x ]; [ "$(ls /usr/lib/git-moved | wc -l)" -gt 100 ]
            [ -e /usr/share/renamed/completions ]; [ ! -e /usr/share/bash-completion ]; [ -e /etc/skeleton/.profile ]; }'
}

check_inside_unnamed_and_deleted_files() {
    borrow tools
    podman run --rm --network=none tools python3 -c '
import os, tempfile, mmap
with tempfile.TemporaryFile(dir="/var/tmp") as f:
    f.write(b"x" * 100000); f.flush(); f.seek(0)
    assert f.read() == b"x" * 100000 and os.fstat(f.fileno()).st_nlink == 0
try:
    os.close(os.open("/var/tmp", os.O_TMPFILE | os.O_RDWR))
except OSError as error:
    assert error.errno == 95, error
f = open("/etc/passwd", "r+b")
os.unlink("/etc/passwd")
f.seek(0, 2); f.write(b"more\n"); f.flush()
assert os.fstat(f.fileno()).st_nlink == 0 and not os.path.exists("/etc/passwd")
with open("/root/map", "w+b") as g:
    g.truncate(8192); m = mmap.mmap(g.fileno(), 8192); m[5000:5005] = b"hello"; m.flush()
assert open("/root/map", "rb").read()[5000:5005] == b"hello"
'
}

check_inside_locks() {
    borrow tools
    podman run --rm --network=none tools bash -euc '
        exec 8>/root/lock; flock 8
        if flock -n /root/lock true; then exit 1; fi
        exec 8>&-; flock -n /root/lock true
        python3 -c "
import fcntl, os
f = open(\"/root/lock\", \"w\"); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
if os.fork() == 0:
    try:
        fcntl.lockf(open(\"/root/lock\", \"w\"), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os._exit(0)
    os._exit(1)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))"'
}

check_inside_sockets_and_fifos() {
    borrow tools
    podman run --rm --network=none tools bash -euc '
        mkfifo /root/fifo; (echo through > /root/fifo) & [ "$(cat /root/fifo)" = through ]
        python3 -c "
import os, socket
s = socket.socket(socket.AF_UNIX); s.bind(\"/run/sock\"); s.listen()
if os.fork() == 0:
    c = socket.socket(socket.AF_UNIX); c.connect(\"/run/sock\"); c.sendall(b\"hello\"); os._exit(0)
assert s.accept()[0].recv(5) == b\"hello\""
        mv /run/sock /root/sock; [ -S /root/sock ]'
}

check_inside_sqlite() {
    at_work '
        sum() { sqlite3 /root/db "pragma integrity_check; select count(*), sum(n) from t"; }
        work() { sqlite3 db "pragma journal_mode=wal; pragma synchronous=full; create table t (n integer primary key, x blob)" >/dev/null
            for turn in $(seq 20); do sqlite3 db "pragma synchronous=full; insert into t select value + $turn * 100, randomblob(500) from generate_series(1, 100)"; done
            sqlite3 db "delete from t where n % 3 = 0; vacuum"; sum > /root/sum; }
        look() { sum | diff /root/sum -; sum | grep -q ^ok; }'
}

check_inside_git_clone() {
    at_work '
        work() { git init -q project; cd project; git config user.name a; git config user.email a@b
            for d in $(seq 20); do mkdir $d; for f in $(seq 20); do echo $d/$f > $d/$f; done; done
            git add -A; git commit -qm one; git mv 1 moved; git commit -qm two; git gc -q; cd ..; git clone -q project clone; }
        look() { for r in project clone; do git -C $r fsck --strict; [ -z "$(git -C $r status --porcelain)" ]; done; [ "$(ls clone/moved | wc -l)" = 20 ]; }'
}

check_inside_python_venv_and_pip() {
    at_work '
        work() { python3 -m venv /venv; mkdir -p p/hello; echo "def say(): return 42" > p/hello/__init__.py
            printf "from setuptools import setup\nsetup(name=\"hello\", version=\"1\", packages=[\"hello\"])\n" > p/setup.py
            /venv/bin/pip install -q --no-index --find-links /usr/share/python-wheels --no-build-isolation --force-reinstall setuptools
            /venv/bin/pip install -q --no-index --no-build-isolation --no-use-pep517 ./p; }
        look() { [ "$(cd /; /venv/bin/python -c "import hello; print(hello.say())")" = 42 ]; /venv/bin/pip check; }'
}

full_inside_gcc() {
    at_work '
        work() { for f in $(seq 40); do echo "int f$f(int x) { return x + $f; }" > $f.c; done
            { for f in $(seq 40); do echo "int f$f(int);"; done; echo "int main(void) { int x = 0;"; for f in $(seq 40); do echo "x = f$f(x);"; done; echo "return x != 820; }"; } > main.c
            for f in *.c; do gcc -c -O1 $f; done; ar rcs l.a [0-9]*.o; gcc -o main main.o l.a; mv main /usr/local/bin/sums; }
        look() { sums; }' everything
}

full_inside_pip() {
    at_work '
        work() { pip3 download -q --no-index --find-links /usr/share/python-wheels setuptools 2>/dev/null || true
            pip3 install -q --break-system-packages --no-index --find-links /usr/share/python-wheels --target /opt/py --upgrade setuptools pip; }
        look() { PYTHONPATH=/opt/py python3 -c "import setuptools; assert setuptools.__file__.startswith(\"/opt\")"; }' everything
}

full_inside_npm() {
    at_work '
        work() { mkdir -p lib/sub app; echo "{\"name\": \"lib\", \"version\": \"1.0.0\"}" > lib/package.json; echo "module.exports = 42" > lib/index.js
            (cd lib && npm pack --silent >/dev/null); cd app; npm init -y >/dev/null
            npm install --offline --silent ../lib/lib-1.0.0.tgz; npm install --offline --silent ../lib/lib-1.0.0.tgz; npm dedupe --offline --silent; cd ..; }
        look() { [ "$(cd app && node -p "require(\"lib\")")" = 42 ]; }' everything
}

full_inside_postgres() {
    at_work '
        cd /
        psql() { su postgres -c "psql -qAt -h /tmp -c \"$1\""; }
        run() { su postgres -c "/usr/lib/postgresql/*/bin/pg_ctl -D /var/lib/postgresql/data -o \"-k /tmp -c listen_addresses= \" -l /tmp/log -w $1" >/dev/null; }
        work() { su postgres -c "/usr/lib/postgresql/*/bin/initdb -D /var/lib/postgresql/data" >/dev/null; run start; [ "$(psql "show fsync")" = on ]
            psql "create table t as select n, repeat(md5(n::text), 10) x from generate_series(1, 20000) n"; psql "checkpoint"
            psql "update t set x = x || n where n % 7 = 0"; su postgres -c "kill -9 \$(head -1 /var/lib/postgresql/data/postmaster.pid)"; sleep 1; rm -f /var/lib/postgresql/data/postmaster.pid; run start; run stop; }
        look() { run start; [ "$(psql "select count(*), sum(length(x)) from t")" = "20000|6412700" ]; psql "vacuum full t"; run stop; }' everything
}

full_inside_chown_tar_and_rm_of_usr() {
    at_work '
        work() { tar -C / -cf /root/t.tar usr; mkdir u; tar -C u -xf t.tar; chown -R -h 33:44 /usr/share; cp -a /usr/share c; rm -rf /usr/share; mkdir /usr/share; }
        look() { tar -C /root/u -df t.tar; [ -z "$(ls /usr/share)" ]; [ -z "$(find c ! \( -uid 33 -gid 44 \) -print -quit)" ]; }'
}
