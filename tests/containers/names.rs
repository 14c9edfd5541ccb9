//! What is listed, by which names things are found, and what is refused.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::fs::FlockOperation;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use serde_json::Value;

use crate::stage::{Stage, image, text};
use crate::store::support::{Fields, Tar};
use crate::support::posix::names;
use crate::support::privilege::ordinary_user;
use crate::{isolated, needs_root};

#[test]
fn ps_lists_what_is_mounted_and_with_a_all_containers() {
    needs_root!();
    let stage = Stage::new();
    stage.point("m");
    stage.point("n");
    stage.mount("--name web app m");
    stage.mount("--name db app:latest n");
    stage.program.says("umount db");
    let lines = stage.program.says("ps");
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["NAME", "IMAGE", "MOUNTPOINT", "CREATED", "STATUS"]
    );
    assert!(lines[1].starts_with("web       app:latest   "), "{lines:?}");
    assert!(lines[1].ends_with("   mounted") && lines.len() == 2, "{lines:?}");
    let all: Vec<Value> = stage
        .program
        .says("ps -a --format json")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let find = |name: &str| all.iter().find(|line| line["Name"] == name).unwrap().clone();
    let (web, db) = (find("web"), find("db"));
    assert_eq!((&web["Mounted"], &db["Mounted"]), (&true.into(), &false.into()));
    assert_eq!(web["Mountpoint"], stage.program.path("m").to_str().unwrap());
    assert_eq!((&db["Mountpoint"], &db["Pid"]), (&Value::Null, &Value::Null));
    let serves = fs::read_to_string(format!("/proc/{}/comm", web["Pid"])).unwrap();
    assert_eq!(serves, "plyfs\n");
    assert_eq!(web["ImageID"], image().id());
    assert_eq!(db["Image"], "app:latest");
    stage.program.says("umount web");
}

#[test]
fn a_read_only_mount_has_a_name_and_leaves_nothing() {
    needs_root!();
    let stage = Stage::new();
    let point = stage.point("m");
    for words in ["-r app m", "app m -o ro"] {
        let name = stage.mount(words);
        assert_eq!(stage.mounted(), [name.as_str()]);
        assert!(stage.program.says("ps").contains("mounted, no container"));
        assert_eq!(text(point.join("app")), "application");
        let refused = fs::write(point.join("new"), "").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        stage.program.says(&format!("umount {name}"));
        assert_eq!(stage.program.says("ps -aq"), "");
        assert_eq!(names(stage.program.store().join("mounts")), [""; 0]);
    }
}

#[test]
fn changes_go_into_a_directory_of_the_users() {
    needs_root!();
    let stage = Stage::new();
    let (point, upper) = (stage.point("m"), stage.point("up"));
    for content in ["application", "changed"] {
        stage.mount("--upper up app m");
        assert_eq!(text(point.join("app")), content);
        fs::write(point.join("app"), "changed").unwrap();
        stage.program.says("umount m");
        assert_eq!(names(&upper), ["app"]);
    }
    assert_eq!(stage.program.says("ps -aq"), "");
    assert!(stage.program.path("up.work").is_dir());
    let (status, line) = stage.program.fails("mount --upper none app m");
    assert_eq!(status, 1, "{line}");
    assert!(line.contains("upper layer none: No such file or directory"), "{line}");
}

#[test]
fn what_does_not_exist_is_status_3_and_what_is_refused_1() {
    needs_root!();
    let stage = Stage::new();
    stage.point("m");
    stage.point("n");
    let mut other = image();
    other.layers.push(Tar::new().file("other", "other").end());
    stage.load("other", &other);
    stage.load("app2", &image());
    stage.mount("--name web app m");
    let store = stage.program.store().display().to_string();
    let mountpoint = stage.program.path("m").display().to_string();
    for (words, status, line) in [
        ("mount nothing n", 3, format!("no image `nothing` in {store}")),
        ("mount --name nobody n", 3, format!("no container `nobody` in {store}")),
        ("rm nobody", 3, format!("no container `nobody` in {store}")),
        ("rm ../containers/web", 3, format!("no container `../containers/web` in {store}")),
        ("umount nobody", 3, "no mount and no container `nobody`".into()),
        ("mount --name a/b app n", 1, "`a/b` is no name of a container".into()),
        (
            "mount --name web app n",
            1,
            format!("container web is mounted on {mountpoint}; unmount it first"),
        ),
        ("rm web", 1, format!("container web is mounted on {mountpoint}; unmount it first")),
        ("mount --name new app missing", 1, "mountpoint missing: does not exist".into()),
        ("mount --name new app n -o io=fast", 2, "option io: `fast` is not valid".into()),
        ("mount app n -o upperdir=u,workdir=w", 2, "option lowerdir: missing".into()),
        ("mount none n", 2, "option lowerdir: missing".into()),
    ] {
        let (found, said) = stage.program.fails(words);
        assert_eq!(found, status, "{words}: {said}");
        assert!(said.starts_with(&format!("plyfs: {line}")), "{words}: {said}");
    }
    // What was not mounted has left no container.
    assert_eq!(stage.program.says("ps -aq"), "web\n");
    stage.program.says("umount web");
    let (status, line) = stage.program.fails("umount web");
    assert_eq!((status, line.as_str()), (1, "plyfs: container web is not mounted"));
    let (status, line) = stage.program.fails("mount --name web other m");
    assert_eq!(status, 1);
    assert!(line.contains("container web is over image app:latest ("), "{line}");
    // The same image by another name, by its id, or by the name that it has lost.
    let id = image().id();
    stage.program.says("image rm app");
    for words in
        ["--name web app2 m", &format!("--name web {id} m"), "--name web app m", "--name web m"]
    {
        assert_eq!(stage.mount(words), "web", "{words}");
        stage.program.says("umount web");
    }
}

#[test]
fn names_of_mountpoints_do_not_reach_the_terminal_raw() {
    needs_root!();
    let stage = Stage::new();
    let point = stage.program.dir.path().join(OsStr::from_bytes(b"m\x1b[2J\n\xff"));
    fs::create_dir(&point).unwrap();
    let mut command = stage.program.command("mount --name odd app");
    assert!(command.arg(&point).status().unwrap().success());
    for words in ["ps --no-trunc", "ps --format json"] {
        let listed = stage.program.says(words);
        assert!(!listed.contains('\x1b'), "{listed:?}");
        assert!(listed.contains("u{1b}[2J\\n") || listed.contains("u001b[2J\\n"), "{listed:?}");
    }
    let refused = stage.program.fails("rm odd").1;
    assert!(refused.contains("m\\u{1b}[2J\\n"), "{refused:?}");
    stage.program.says("umount odd");
    assert_eq!(names(&point), [""; 0]);
}

/// As the helper of mount(8) for the type, and by mount(8) itself, which looks for programs in the usual places only.
#[test]
fn mount_takes_an_image_as_the_source() {
    needs_root!();
    let stage = Stage::new();
    let point = stage.point("m");
    for name in ["mount.plyfs", "plyfs"] {
        let program = crate::support::mount::program();
        std::os::unix::fs::symlink(program, stage.program.path(name)).unwrap();
    }
    let script = r#"mount --bind . /usr/local/bin; options=rw,noexec,container=web,store=$PWD/store; m=$PWD/m
        show() { cat m/app; grep -c "^app:latest $m fuse.plyfs rw,.*noexec" /proc/mounts; ./plyfs umount m; }
        ./mount.plyfs app m -o $options; show
        cd /; mount -t fuse.plyfs app $m -o $options; cd -; show"#;
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-ec", script]);
    let output = command.current_dir(stage.program.dir.path()).output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
    let place = stage.program.dir.path().display();
    assert_eq!(said, [format!("application1\nweb\n{place}\napplication1\n"), String::new()]);
    assert_eq!(stage.program.says("ps -aq"), "web\n");
    assert_eq!(names(&point), [""; 0]);
}

#[test]
fn the_root_of_a_container_is_that_of_the_image() {
    needs_root!();
    let stage = Stage::empty();
    let root = Fields { mode: 0o1777, uid: 3, gid: 4, mtime: 1_000_000, ..Fields::new(b'5', "./") };
    let base = Tar::new().entry(root, b"").file("file", "base").end();
    let top = Tar::new().file("other", "top").end();
    let image = crate::store::program::TestImage { layers: vec![base, top] };
    stage.load("app", &image);
    let point = stage.point("m");
    for words in ["--name web app m", "-r app m", "--name web m"] {
        stage.mount(words);
        let stat = fs::metadata(&point).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!((stat.uid(), stat.gid()), (3, 4), "{words}");
        assert_eq!(
            (stat.permissions().mode() & 0o7777, stat.mtime()),
            (0o1777, 1_000_000),
            "{words}"
        );
        stage.program.says("umount m");
    }
}

#[test]
fn a_container_of_an_ordinary_user_goes_with_directories_that_are_closed_to_him() {
    isolated!(User, {
        let stage = Stage::new();
        let point = stage.point("m");
        stage.mount("--name web app m");
        for name in ["bin", "new"] {
            fs::create_dir_all(point.join(name).join("below")).unwrap();
            fs::write(point.join(name).join("below/file"), "").unwrap();
            for closed in ["below", ""] {
                let path = point.join(name).join(closed);
                fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
            }
        }
        stage.program.says("umount web");
        // As other programs may have left it.
        let upper = stage.program.store().join("containers/web/upper/new");
        fs::set_permissions(upper, fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(stage.program.says("rm web"), "web\n");
        for folder in ["containers", "mounts", "tmp"] {
            assert_eq!(names(stage.program.store().join(folder)), [""; 0], "{folder}");
        }
    });
}

#[test]
fn a_store_that_cannot_be_written_to_can_be_read() {
    needs_root!();
    let stage = Stage::new();
    let point = stage.point("ro");
    mount_bind(stage.program.store(), &point).unwrap();
    mount_remount(&point, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
    let before = |words: &str| stage.program.says(&format!("--store ro {words}"));
    assert_eq!(before("images -q"), stage.program.says("images -q"));
    let save = |words: &str| stage.program.run(words).stdout;
    assert_eq!(save("--store=ro image save app"), save("image save app"));
    assert!(before("store verify --full").ends_with("no problems\n"));
    let (status, line) = stage.program.fails("image tag --store ro app other");
    assert_eq!(status, 1);
    assert!(line.contains("store ro: cannot write to tmp: Read-only file system"), "{line}");
    unmount(&point, UnmountFlags::empty()).unwrap();
}

fn read_only_store() {
    let stage = Stage::new();
    let (ro, point, upper) = (stage.point("ro"), stage.point("m"), stage.point("up"));
    mount_bind(stage.program.store(), &ro).unwrap();
    mount_remount(&ro, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
    // It has no name: there is no room to note it.
    assert_eq!(stage.program.says("mount --store ro -r app m"), "");
    assert_eq!(text(point.join("app")), "application");
    // Nothing else says that its layers are in use.
    let lock = fs::File::open(stage.program.path("store/lock")).unwrap();
    let held = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(held, Err(rustix::io::Errno::WOULDBLOCK));
    drop(lock);
    stage.program.says("umount --store ro m");
    assert_eq!(stage.program.says("mount --store ro --upper up app m"), "");
    fs::write(point.join("app"), "changed").unwrap();
    stage.program.says("umount --store ro m");
    assert_eq!(names(&upper), ["app"]);
    for words in ["mount --store ro app m", "mount --store ro --name web app m"] {
        let (status, line) = stage.program.fails(words);
        let why = "store ro: it cannot be written, so there is no room for a container; mount the image with -r";
        assert!(status == 1 && line.contains(why), "{status} {line}");
    }
    let (status, line) = stage.program.fails("mount --store ro -r nothing m");
    assert!(status == 3 && line.contains("no image `nothing`"), "{line}");
    unmount(&ro, UnmountFlags::DETACH).unwrap();
}

#[test]
fn images_are_mounted_from_a_store_that_cannot_be_written_to() {
    isolated!(Root, read_only_store());
}

#[test]
fn images_are_mounted_from_a_store_that_cannot_be_written_to_in_a_user_namespace() {
    isolated!(UserNamespace, read_only_store());
}

#[test]
fn images_are_mounted_from_the_store_of_another_user_who_lets_read_it() {
    needs_root!();
    let stage = Stage::new();
    let program = stage.program.path("plyfs");
    fs::copy(crate::support::mount::program(), &program).unwrap();
    fs::set_permissions(stage.program.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let point = stage.point("m");
    let (uid, gid) = ordinary_user();
    std::os::unix::fs::chown(&point, Some(uid), Some(gid)).unwrap();
    let as_user = |words: &str| {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={uid}"), format!("--regid={gid}")]).arg("--clear-groups");
        command.arg(&program).args(words.split(' ')).current_dir(stage.program.path(""));
        let output = command.env("PLYFS_STORE", stage.program.store()).output().unwrap();
        let line = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap(), line)
    };
    let root = stage.program.store().display().to_string();
    for words in ["mount -r app m", "images"] {
        let (status, _, line) = as_user(words);
        let why = format!(
            "plyfs: store {root}: no permission to use it; name one of yours with --store\n"
        );
        assert_eq!((status, line), (1, why), "{words}");
    }
    crate::support::posix::run("chmod", ["-R", "a+rX", &root]);
    assert_eq!(as_user("mount -r app m"), (0, String::new(), String::new()));
    let (status, _, line) = as_user("umount m");
    assert_eq!((status, line), (0, String::new()));
    assert!(as_user("images -q").1.starts_with(&image().id()["sha256:".len()..][..12]));
    let (status, _, line) = as_user("mount app m");
    assert!(status == 1 && line.contains("no room for a container"), "{line}");
}

#[test]
fn a_name_never_unmounts_what_is_mounted_over_it_or_in_its_place() {
    isolated!(UserNamespace, {
        let stage = Stage::new();
        let (point, other) = (stage.point("m"), stage.point("n"));
        fs::write(stage.point("lower").join("file"), "covers").unwrap();
        stage.mount("--name web app m");
        stage.program.says("-o lowerdir=lower m");
        let (status, line) = stage.program.fails("umount web");
        let why = "/m: the mount is covered by another one, or in another mount namespace";
        assert!(status == 1 && line.ends_with(why), "{line}");
        assert_eq!(text(point.join("file")), "covers");
        stage.program.says("umount m");
        // Moved, and another one in its place.
        rustix::mount::mount_move(&point, &other).unwrap();
        stage.program.says("-o lowerdir=lower m");
        assert_eq!(text(other.join("app")), "application");
        stage.program.says("umount web");
        assert_eq!(names(&other), [""; 0]);
        assert_eq!(text(point.join("file")), "covers");
        stage.program.says("umount m");
    });
}

#[test]
fn a_directory_on_which_nothing_is_mounted_is_said_to_be_not_mounted() {
    needs_root!();
    let stage = Stage::new();
    let point = stage.point("m").display().to_string();
    assert_eq!(stage.program.fails("umount m"), (3, format!("plyfs: {point}: not mounted")));
    assert_eq!(stage.program.fails("umount ./m"), (1, format!("plyfs: {point}: not mounted")));
    let (status, line) = stage.program.fails("umount nobody");
    assert_eq!((status, line.as_str()), (3, "plyfs: no mount and no container `nobody`"));
}
