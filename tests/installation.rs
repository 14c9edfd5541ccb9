//! Installing and removing: by script, as a Debian package, and the program alone in an empty root directory.

#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_plyfs");
const NAMES: [&str; 2] = ["mount.plyfs", "mount.fuse.plyfs"];

fn script(name: &str) -> Command {
    let mut command =
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name));
    command.env_remove("DESTDIR").env("SOURCE_DATE_EPOCH", "1700000000");
    command
}

fn install(prefix: &Path) -> Command {
    let mut command = script("install");
    command.args(["--sbin", "none", "--program", PROGRAM, "--prefix"]).arg(prefix);
    command
}

fn uninstall(prefix: &Path) -> Command {
    let mut command = script("install");
    command.args(["--uninstall", "--prefix"]).arg(prefix);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it prints.
fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}{}", text(&stdout), text(&stderr));
    text(&stdout)
}

/// The one line that it says.
fn refuses(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(!status.success(), "{command:?}: {}", text(&stdout));
    let stderr = text(&stderr);
    assert_eq!(stderr.trim().lines().count(), 1, "{stderr}");
    stderr.trim().to_owned()
}

/// Everything below `directory` but directories, in order.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => open.push(entry.path()),
                false => found.push(entry.path().to_str().unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}

/// Under CI nothing may be skipped.
fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(root || std::env::var_os("CI").is_none(), "{what} needs root");
    if !root {
        eprintln!("SKIP {what}: not root");
    }
    root
}

/// Runs a script in a mount namespace of its own, which takes away what it mounts.
fn in_namespace(script: &str, arguments: &[&OsStr]) -> String {
    let mut command = Command::new("unshare");
    // A copy of what other tests have mounted just then goes with that.
    command.args(["-m", "--propagation", "slave", "timeout", "400", "sh", "-ec", script, "sh"]);
    succeeds(command.args(arguments))
}

#[test]
fn everything_goes_below_destdir_and_is_named() {
    let place = tempfile::tempdir().unwrap();
    let mut command = script("install");
    command.args(["--prefix", "/usr", "--program", PROGRAM, "--destdir"]).arg(place.path());
    let mut said: Vec<_> = succeeds(&mut command).lines().map(str::to_owned).collect();
    said.sort();
    assert_eq!(said, files(place.path()));

    let at = |path: &str| place.path().join(path);
    let version = succeeds(Command::new(at("usr/bin/plyfs")).arg("--version"));
    assert!(version.starts_with("plyfs "), "{version}");
    let large = [
        "man/man1/plyfs.1",
        "doc/plyfs/README.md",
        "doc/plyfs/options.md",
        "bash-completion/completions/plyfs",
        "zsh/site-functions/_plyfs",
        "fish/vendor_completions.d/plyfs.fish",
    ];
    for file in large {
        assert!(at("usr/share").join(file).metadata().unwrap().len() > 1000, "{file}");
    }
    for name in NAMES {
        let target = fs::read_link(at("sbin").join(name)).unwrap();
        assert_eq!(target.to_str(), Some("/usr/bin/plyfs"), "{name}");
        assert!(at("usr/share/man/man8").join(format!("{name}.8")).exists());
    }
}

#[test]
fn what_was_installed_is_removed_and_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let home = place.path().join("ho me");
    fs::create_dir_all(home.join("bin")).unwrap();
    fs::write(home.join("bin/other"), "").unwrap();
    succeeds(&mut install(&home));
    let first = files(&home);
    assert!(first.len() > 15, "{first:?}");

    // Again, as for a new version; what only the old one had goes.
    let list = home.join("share/plyfs/installed");
    let old = home.join("share/doc/plyfs/old.md");
    fs::write(&old, "").unwrap();
    fs::write(&list, fs::read_to_string(&list).unwrap() + &format!("{}\n", old.display())).unwrap();
    succeeds(&mut install(&home));
    assert_eq!(files(&home), first);

    let removed: Vec<_> = succeeds(&mut uninstall(&home)).lines().map(str::to_owned).collect();
    assert_eq!(removed.len(), first.len() - 1);
    assert_eq!(files(place.path()), [home.join("bin/other").to_str().unwrap()]);
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1, "empty directories stay");
    let line = refuses(&mut uninstall(&home));
    assert!(line.contains("share/plyfs/installed is missing or empty"), "{line}");
}

#[test]
fn what_cannot_be_done_whole_is_not_begun() {
    let place = tempfile::tempdir().unwrap();
    let prefix = place.path().join("prefix");
    fs::create_dir_all(prefix.join("bin")).unwrap();
    let foreign = prefix.join("bin/plyfs");
    fs::write(&foreign, "another").unwrap();
    let line = refuses(&mut install(&prefix));
    assert!(line.contains("bin/plyfs is there, and this script has not put it there"), "{line}");
    assert_eq!(files(&prefix), [foreign.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&foreign).unwrap(), "another");

    fs::remove_file(&foreign).unwrap();
    fs::write(prefix.join("share"), "").unwrap();
    let line = refuses(&mut install(&prefix));
    assert!(line.contains("share is no directory; nothing was changed"), "{line}");
    assert_eq!(files(&prefix), [prefix.join("share").to_str().unwrap()]);

    fs::remove_file(prefix.join("share")).unwrap();
    let line = refuses(install(&prefix).args(["--program", "/etc/passwd"]));
    assert!(line.ends_with("/etc/passwd is no executable"), "{line}");
    assert_eq!(files(&prefix), [""; 0]);
}

#[test]
fn what_was_left_half_done_is_told_and_can_be_finished_or_removed() {
    let place = tempfile::tempdir().unwrap();
    // Less room than the program takes, then enough.
    let script = r#"cd "$1"; mkdir full; mount -t tmpfs -o size=2m tmpfs full
        install() { "$2" --prefix "$1/full/p" --sbin none --program "$3" >/dev/null 2>said; }
        uninstall() { "$2" --uninstall --prefix "$1/full/p" >/dev/null; echo left: $(ls full); }
        if install "$@"; then exit 9; fi
        grep 'Not everything was put in its place' said
        uninstall "$@"
        if install "$@"; then exit 9; fi
        mount -o remount,size=500m full
        install "$@"
        full/p/bin/plyfs --version
        uninstall "$@""#;
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-ec", script, "sh"]).arg(place.path());
    let said = succeeds(command.arg(script_path("install")).arg(PROGRAM));
    assert!(said.contains("--uninstall --prefix"), "{said}");
    assert!(said.ends_with("left:\n") && said.matches("left:\n").count() == 2, "{said}");
}

fn script_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

/// Builds the package; its path.
fn package(place: &TempDir, name: &str) -> PathBuf {
    let mut command = script("package");
    command.args(["--fast", "--program", PROGRAM, "--output"]).arg(place.path().join(name));
    succeeds(&mut command).lines().next_back().unwrap().into()
}

#[test]
fn heavy_a_package_is_reproducible_and_has_what_debian_expects() {
    let place = tempfile::tempdir().unwrap();
    let package_file = package(&place, "one");
    let again = package(&place, "two");
    assert!(fs::read(&package_file).unwrap() == fs::read(&again).unwrap(), "they differ");

    let about = succeeds(Command::new("dpkg-deb").arg("-I").arg(&package_file));
    for line in ["Package: plyfs", "Depends: fuse3, libc6 (>= ", "Recommends: uidmap", "md5sums"] {
        assert!(about.contains(line), "{line}: {about}");
    }
    let list = succeeds(Command::new("dpkg-deb").arg("-c").arg(&package_file));
    let all_of_root = list.lines().all(|line| line.split_whitespace().nth(1) == Some("root/root"));
    assert!(all_of_root && list.contains("2023-11-14"), "{list}");
    let expected = [
        "-rwxr-xr-x ./usr/bin/plyfs",
        "-rw-r--r-- ./usr/share/man/man1/plyfs.1.gz",
        "-rw-r--r-- ./usr/share/doc/plyfs/copyright",
        "-rw-r--r-- ./usr/share/doc/plyfs/changelog.gz",
        "-rw-r--r-- ./usr/share/doc/plyfs/changelog.Debian.gz",
        "-rw-r--r-- ./usr/share/zsh/vendor-completions/_plyfs",
        "-rw-r--r-- ./usr/share/bash-completion/completions/plyfs",
        "-rw-r--r-- ./usr/share/fish/vendor_completions.d/plyfs.fish",
        "lrwxrwxrwx ./usr/sbin/mount.plyfs -> ../bin/plyfs",
    ];
    for line in expected {
        let (mode, path) = line.split_once(' ').unwrap();
        let has = |found: &&str| found.starts_with(mode) && found.ends_with(path);
        assert!(list.lines().any(|found| has(&found)), "{line}: {list}");
    }
}

#[test]
fn heavy_an_installed_package_serves_mount_and_fstab_and_goes_without_a_trace() {
    if !is_root("dpkg -i") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let package = package(&place, "built");
    // A machine to install to: this one, with what changes on tmpfs.
    let script = r#"cd "$1"; mkdir changes root
        mount -t tmpfs -o size=600m tmpfs changes
        mkdir changes/upper changes/work
        mount -t overlay -o lowerdir=/,upperdir=changes/upper,workdir=changes/work machine root
        cp "$2" root/plyfs.deb
        for at in proc dev sys; do mount --rbind /$at root/$at; done
        mount -t tmpfs tmpfs root/mnt
        cat >root/inside <<'END'
            dpkg --force-unsafe-io -i /plyfs.deb >/dev/null
            (cd / && md5sum --quiet -c /var/lib/dpkg/info/plyfs.md5sums)
            cd /mnt; mkdir lower upper work merged; echo low >lower/a
            options=lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work
            mount -t plyfs none merged -o $options
            echo more >>merged/a; echo $(cat upper/a); umount merged
            echo "none /mnt/merged fuse.plyfs $options,nosuid 0 0" >/etc/fstab
            mount /mnt/merged; echo $(cat merged/a) $(stat -f -c %T merged); umount /mnt/merged
            dpkg -L plyfs >list
            dpkg -r plyfs >/dev/null
            while read -r path; do [ -d "$path" ] || ! [ -e "$path" ] || echo "$path"; done <list
            ls -d /usr/share/doc/plyfs 2>&1 || true
END
        chroot root env DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C sh -e /inside"#;
    let said = in_namespace(script, &[place.path().as_os_str(), package.as_os_str()]);
    let gone = "ls: cannot access '/usr/share/doc/plyfs': No such file or directory\n";
    assert_eq!(said, format!("low more\nlow more fuseblk\n{gone}"));
}

/// What there is for a program without libraries: a static one has nothing else to be copied.
#[test]
fn the_program_alone_mounts_in_an_empty_root_directory() {
    if !is_root("chroot") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let script = r#"cd "$1"; mkdir proc dev lower upper work mnt; touch dev/fuse; echo low >lower/a
        for library in "$2" $(ldd "$2" | grep -o '/[^ ]*'); do
            [ -e ".$library" ] || install -D "$library" ".$library"
        done
        mount -t proc proc proc
        mount --bind /dev/fuse dev/fuse
        chroot . "$2" -o lowerdir=/lower,upperdir=/upper,workdir=/work /mnt
        echo more >>mnt/a
        chroot . "$2" stats /mnt >stats; [ -s stats ]
        chroot . "$2" umount /mnt
        cat upper/a; ls mnt"#;
    let program = std::env::var_os("PLYFS_ALONE").unwrap_or(PROGRAM.into());
    let said = in_namespace(script, &[place.path().as_os_str(), &program]);
    assert!(said.ends_with("low\nmore\n"), "{said}");
}

/// Under CI it must be.
fn is_here(shell: &str) -> bool {
    let here = Command::new(shell).arg("--version").output().is_ok();
    assert!(here || std::env::var_os("CI").is_none(), "{shell} is missing");
    here
}

/// Answers of the shells themselves; those that are not here are left out.
#[test]
fn shells_complete_commands_flags_and_mount_options() {
    let place = tempfile::tempdir().unwrap();
    let path = |shell: &str| {
        let path = place.path().join(shell);
        let script = succeeds(Command::new(PROGRAM).args(["generate", "completions", shell]));
        assert!(!script.contains("generate"), "hidden commands");
        fs::write(&path, script).unwrap();
        path
    };
    fs::create_dir_all(place.path().join("layers/one")).unwrap();
    let layers = place.path().join("layers").display().to_string();

    let script = r#". "$1"; COMP_LINE=$2; COMP_POINT=${#2}; shift 2; compopt() { :; }
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        function=$(complete -p plyfs); function=${function#*-F }
        "${function%% *}" plyfs "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        echo "${COMPREPLY[@]}""#;
    let path_of_bash = path("bash");
    let bash = |words: &[&str]| {
        // As readline cuts them.
        let line = words.join(" ").replace(" = ", "=").replace(" : ", ":");
        let line = line.strip_suffix(" =").map_or(line.clone(), |line| format!("{line}="));
        let mut command = Command::new("bash");
        command.args(["-c", script, "bash"]).arg(&path_of_bash).arg(line).args(words);
        succeeds(&mut command).trim().to_owned()
    };
    assert_eq!(bash(&["plyfs", "umo"]), "umount");
    assert_eq!(bash(&["plyfs", "image", "sa"]), "save");
    assert_eq!(bash(&["plyfs", "check", "--rep"]), "--repair");
    assert_eq!(bash(&["plyfs", "-o", "upp"]), "upperdir=");
    assert_eq!(bash(&["plyfs", "mount", "-o", "lowerdir", "=", "/a,upp"]), "/a,upperdir=");
    assert_eq!(bash(&["plyfs", "-o", "ro,io", "="]), "auto zeroopen passthrough plain");
    let beginning = format!("{layers}/o");
    assert_eq!(
        bash(&["plyfs", "-o", "lowerdir", "=", "/a", ":", &beginning]),
        format!("{layers}/one/")
    );
    assert_eq!(bash(&["plyfs", "image", "save", "-o", "upp"]), "");

    if is_here("fish") {
        let path = path("fish");
        let fish = |line: &str| {
            let script = "source $argv[1]; complete -C $argv[2]";
            let mut command = Command::new("fish");
            command.env("HOME", place.path()).args(["--no-config", "-c", script]);
            let said = succeeds(command.arg(&path).arg(line));
            said.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(fish("plyfs umo"), ["umount"]);
        assert_eq!(fish("plyfs -o ro,upp"), ["ro,upperdir="]);
        assert_eq!(
            fish(&format!("plyfs mount -o lowerdir=/a:{layers}/o")),
            [format!("lowerdir=/a:{layers}/one/")]
        );
    }
    if is_here("zsh") {
        succeeds(Command::new("zsh").args(["-f", "-n"]).arg(path("zsh")));
    }
}
