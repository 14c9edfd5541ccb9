use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;

use super::*;
use crate::overlay::id_map::{ShownId, StoredId};

fn parse(text: &str) -> Result<Options, OptionError> {
    Options::parse(&[text])
}

/// The options that `text` gives besides one lower layer.
fn with(text: &str) -> Options {
    let options = parse(&format!("lowerdir=l,{text}")).unwrap();
    assert_eq!(options.warnings, Vec::<String>::new(), "{text}");
    options
}

/// The whole line of the error that `text` gives.
fn error(text: &str) -> String {
    let line = parse(&format!("lowerdir=l,{text}")).unwrap_err().to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

fn paths(list: &[&str]) -> Vec<PathBuf> {
    list.iter().map(PathBuf::from).collect()
}

/// One layer and every default.
fn plain() -> Options {
    Options { lower: paths(&["l"]), ..Options::default() }
}

#[test]
fn layers_upper_and_work() {
    let options = parse("lowerdir=/a:b/../c::d,upperdir=u/.,workdir=../w").unwrap();
    assert_eq!(options.lower, paths(&["/a", "b/../c"]));
    assert_eq!(options.data_only, paths(&["d"]));
    let upper = options.upper.unwrap();
    assert_eq!(upper.upper.as_os_str(), "u/.");
    assert_eq!(upper.work.as_os_str(), "../w");
}

#[test]
fn layers_are_added_one_by_one() {
    let options = parse(r"lowerdir+=/a:b,datadir+=d,lowerdir+=c\,,datadir+=e").unwrap();
    assert_eq!(options.lower, paths(&["/a:b", "c,"]));
    assert_eq!(options.data_only, paths(&["d", "e"]));
    let options = parse("lowerdir=a::d,lowerdir+=b,datadir+=e").unwrap();
    assert_eq!(options.lower, paths(&["a", "b"]));
    assert_eq!(options.data_only, paths(&["d", "e"]));
    for text in ["lowerdir+=", "lowerdir=a,datadir+="] {
        assert!(parse(text).unwrap_err().to_string().ends_with(": the path is empty"), "{text}");
    }
    let without = Options::parse_for_image(&["datadir+=d"]).unwrap_err();
    assert_eq!(without, OptionError::no_layers());
}

#[test]
fn spaces_around_names_and_names_that_are_missing_are_told() {
    assert_eq!(
        error(" upperdir=u, workdir=w"),
        "option upperdir: there is a space before or after its name; write none around commas"
    );
    assert_eq!(error("fsname="), "option fsname: the name is empty");
    assert_eq!(error("subtype=\"\""), "option subtype: the name is empty");
    let warnings = parse("lowerdir=l,=5, x").unwrap().warnings;
    let line = "unknown mount option ignored: ";
    assert_eq!(warnings, [format!("{line}=5"), format!("{line} x")]);
}

#[test]
fn what_podman_passes_gives_no_warning() {
    let options = with("upperdir=ID/diff,workdir=ID/work,,volatile,lazytime,private,");
    assert!(options.volatile);
    let options =
        with(r#"upperdir=u,workdir=w,context="system_u:object_r:container_file_t:s0:c1,c2",ro"#);
    let context = "system_u:object_r:container_file_t:s0:c1,c2";
    assert_eq!(options.vfs.contexts, [("context", context.into())]);
    assert_eq!(options.vfs.read_only, Some(true));
    let options = with("uidmapping=0:1:1001:1001:0:1:1002:1002:64535,gidmapping=:0:1000:1");
    assert_eq!(options.uid_map.to_shown(StoredId(1001)), 0);
    assert_eq!(options.gid_map.to_stored(ShownId(1000)), Some(0));
}

#[test]
fn what_mount_passes_gives_no_warning() {
    let text = "rw,dev,suid,defaults,auto,noauto,nofail,_netdev,x-systemd.requires=a,X-mount.mkdir,\
                comment=c,user,user=me,users,nouser,owner,group,private,rshared,nolazytime,silent,\
                mand,iversion";
    let expected = VfsOptions {
        read_only: Some(false),
        dev: Some(true),
        suid: Some(true),
        ..VfsOptions::default()
    };
    assert_eq!(with(text), Options { vfs: expected, ..plain() });
}

#[test]
fn paths_take_escapes_and_any_bytes() {
    let text = b"lowerdir=\xff\\:1:a\\,b\\\\,upperdir=u\\:\\,\xfe\"x\",workdir=\"w\\a\"".to_vec();
    let options = Options::parse(&[OsString::from_vec(text)]).unwrap();
    let name = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    assert_eq!(options.lower, [name(b"\xff:1"), name(b"a,b\\")]);
    let upper = UpperDirs { upper: name(b"u:,\xfe\"x\""), work: name(b"\"wa\"") };
    assert_eq!(options.upper, Some(upper));
}

#[test]
fn several_texts_are_one_and_the_last_value_wins() {
    let options =
        Options::parse(&["lowerdir=a,ro", "", "lowerdir=b:c::d,timeout=1", "rw,lowerdir=e"]);
    let options = options.unwrap();
    assert_eq!(options.lower, paths(&["e"]));
    assert_eq!(options.data_only, paths(&[]));
    assert_eq!(options.vfs.read_only, Some(false));
    assert_eq!(options.timeout, Some(Duration::from_secs(1)));
    assert!(!with("volatile,fsync=1").volatile);
    assert!(with("fsync=1,volatile").volatile);
    let options = with("context=a,fscontext=b,context=c");
    assert_eq!(options.vfs.contexts, [("fscontext", "b".into()), ("context", "c".into())]);
}

#[test]
fn five_hundred_layers_in_128_kib() {
    let layers: Vec<String> = (0..500).map(|n| format!("/{n:0>255}")).collect();
    let text = format!("lowerdir={}", layers.join(":"));
    assert!(text.len() > 120 << 10);
    let options = parse(&text).unwrap();
    assert_eq!(options.lower.len(), 500);
    assert_eq!(options.lower[499].as_os_str(), layers[499].as_str());
}

#[test]
fn every_word_and_switch_sets_its_field() {
    let same = |text: &str, change: fn(&mut Options)| {
        let mut expected = plain();
        change(&mut expected);
        assert_eq!(with(text), expected, "{text}");
    };
    same("redirect_dir=on", |o| o.redirect_dir = RedirectDir::On);
    same("redirect_dir=off", |o| o.redirect_dir = RedirectDir::Follow);
    same("redirect_dir=follow", |o| o.redirect_dir = RedirectDir::Follow);
    same("redirect_dir=nofollow", |o| o.redirect_dir = RedirectDir::NoFollow);
    same("redirect_dir=on,redirect_dir=copy", |o| o.redirect_dir = RedirectDir::Copy);
    same("metacopy=on", |o| o.metacopy = true);
    same("metacopy=on,metacopy=off", |_| {});
    same("index=on,index=off", |_| {});
    same("ino32_t", |o| o.ino32 = true);
    same("fast_ino=1", |_| {});
    same("userxattr", |o| o.user_xattr = true);
    same("xattr_permissions=1", |o| o.xattr_permissions = XattrPermissions::Privileged);
    same("xattr_permissions=2", |o| o.xattr_permissions = XattrPermissions::Containers);
    same("xattr_permissions=2,xattr_permissions=0", |_| {});
    same("static_nlink", |o| o.static_nlink = true);
    same("noacl", |o| o.no_acl = true);
    same("noxattrs", |o| o.no_xattrs = true);
    same("noxattrs=1", |o| o.no_xattrs = true);
    same("noxattrs,noxattrs=0", |_| {});
    same("volatile", |o| o.volatile = true);
    same("fsync=0", |o| o.volatile = true);
    same("sync=0", |o| o.volatile = true);
    same("sync=0,sync=1", |_| {});
    same("verify=open", |o| o.verify = true);
    same("io=zeroopen", |o| o.io = Io::ZeroOpen);
    same("io=passthrough", |o| o.io = Io::Passthrough);
    same("io=plain", |o| o.io = Io::Plain);
    same("io=plain,io=auto", |_| {});
    same("cache=always", |o| o.cache = Cache::Always);
    same("cache=never", |o| o.cache = Cache::Never);
    same("cache=none", |o| o.cache = Cache::Never);
    same("cache=never,cache=auto", |_| {});
    same("kernel_cache", |o| o.cache = Cache::Always);
    same("direct_io", |o| o.cache = Cache::Never);
    same("direct_io,auto_cache", |_| {});
    same("writeback=0", |o| o.writeback = Some(false));
    same("writeback=1", |o| o.writeback = Some(true));
    same("timeout=0", |o| o.timeout = Some(Duration::ZERO));
    same("timeout=1.5", |o| o.timeout = Some(Duration::from_millis(1500)));
    same("timeout=1000000000.0", |o| o.timeout = Some(Duration::from_secs(1_000_000_000)));
    same("threaded=0", |o| o.threads = Some(1));
    same("threaded=0,max_threads=8", |o| o.threads = Some(1));
    same("threaded=1,max_threads=8", |o| o.threads = Some(8));
    same("max_write=131072", |o| o.max_write = Some(131072));
    same("debug", |o| o.debug = true);
    same("squash_to_root", |o| (o.squash_uid, o.squash_gid) = (Some(0), Some(0)));
    same("squash_to_uid=7,squash_to_root", |o| (o.squash_uid, o.squash_gid) = (Some(7), Some(0)));
    same("squash_to_gid=4294967294", |o| o.squash_gid = Some(u32::MAX - 1));
}

#[test]
fn every_kernel_option_sets_its_field() {
    let same = |text: &str, change: fn(&mut VfsOptions)| {
        let mut expected = VfsOptions::default();
        change(&mut expected);
        assert_eq!(with(text).vfs, expected, "{text}");
    };
    same("ro", |v| v.read_only = Some(true));
    same("rw", |v| v.read_only = Some(false));
    same("suid", |v| v.suid = Some(true));
    same("nosuid", |v| v.suid = Some(false));
    same("dev", |v| v.dev = Some(true));
    same("nodev", |v| v.dev = Some(false));
    same("exec", |v| v.exec = Some(true));
    same("noexec", |v| v.exec = Some(false));
    same("atime", |v| v.atime = Some(Atime::Relative));
    same("relatime", |v| v.atime = Some(Atime::Relative));
    same("noatime", |v| v.atime = Some(Atime::Never));
    same("strictatime", |v| v.atime = Some(Atime::Strict));
    same("relatime,norelatime", |_| {});
    same("noatime,norelatime", |v| v.atime = Some(Atime::Never));
    same("strictatime,nostrictatime", |_| {});
    same("relatime,nostrictatime", |v| v.atime = Some(Atime::Relative));
    same("diratime", |v| v.dir_atime = Some(true));
    same("nodiratime", |v| v.dir_atime = Some(false));
    same("sync", |v| v.sync = Some(true));
    same("async", |v| v.sync = Some(false));
    same("dirsync", |v| v.dir_sync = true);
    same("nosymfollow", |v| v.no_symfollow = true);
    same("allow_other", |v| v.allow = Some(Allow::Other));
    same("allow_root", |v| v.allow = Some(Allow::Root));
    same("default_permissions", |v| v.default_permissions = true);
    same("fsname=a\\,b", |v| v.fs_name = Some("a,b".into()));
    same("subtype=x", |v| v.subtype = Some("x".into()));
    same("defcontext=\"\",rootcontext=a\"b", |v| {
        v.contexts = vec![("defcontext", "".into()), ("rootcontext", "a\"b".into())];
    });
}

#[test]
fn options_without_effect_change_nothing() {
    for spec in table::all().filter(|spec| spec.status == table::Status::NoEffect) {
        let name = spec.name.replace('*', "anything");
        let text = match spec.value {
            value::Value::Ignored => format!("{name},{name}=1,{name}=\"a,b\""),
            value::Value::Bool(_) => format!("{name}=0,{name}=1"),
            _ => spec.value.beginnings().iter().map(|word| format!("{name}{word},")).collect(),
        };
        assert_eq!(with(&text), plain(), "{text}");
    }
}

#[test]
fn unknown_options_warn_once_each() {
    let options = parse("lowerdir=l,nonsense,nonsense=2,x=\"a,ro\",=,\u{1}").unwrap();
    let warnings = ["nonsense", "x", "=", "\\u{1}"];
    let warnings = warnings.map(|name| format!("unknown mount option ignored: {name}"));
    assert_eq!(options, Options { warnings: warnings.into(), ..plain() });
}

#[test]
fn passthrough_goes_with_nothing_that_the_daemon_does_with_data() {
    for (other, option) in
        [("writeback=1", "writeback"), ("sync", "sync"), ("cache=never", "cache")]
    {
        let expected = format!("option {option}: does not go with io=passthrough; use io=auto");
        assert_eq!(error(&format!("{other},io=passthrough")), expected);
    }
    assert_eq!(with("writeback=0,async,io=passthrough,timeout=1").io, Io::Passthrough);
    assert_eq!(with("sync,writeback=1,io=passthrough,io=auto").io, Io::Auto);
}

#[test]
fn wrong_values_name_the_option() {
    let switch = "is not valid; expected 0 or 1";
    for option in ["threaded", "fsync", "sync", "fast_ino", "writeback", "noxattrs"] {
        assert_eq!(error(&format!("{option}=2")), format!("option {option}: `2` {switch}"));
        assert_eq!(error(&format!("{option}=")), format!("option {option}: `` {switch}"));
    }
    let table = [
        ("timeout=-1", "timeout: `-1` is not valid; expected a number of seconds, 0 or more"),
        ("timeout=inf", "timeout: `inf` is not valid; expected a number of seconds, 0 or more"),
        ("timeout=1s", "timeout: `1s` is not valid; expected a number of seconds, 0 or more"),
        ("redirect_dir=yes", "`yes` is not valid; expected on, off, follow, nofollow or copy"),
        ("xino=", "xino: `` is not valid; expected on, off or auto"),
        ("index=1", "index: `1` is not valid; expected on or off"),
        ("verify=no", "verify: `no` is not valid; expected open"),
        ("xattr_permissions=3", "xattr_permissions: `3` is not valid; expected 0, 1 or 2"),
        ("squash_to_uid=-1", "squash_to_uid: `-1` is not valid; expected a whole number from 0"),
        ("squash_to_gid=4294967295", "expected a whole number from 0 to 4294967294"),
        ("max_threads=0", "max_threads: `0` is not valid; expected a whole number from 1 to 1024"),
        ("max_write=12", "max_write: `12` is not valid; expected a whole number from 4096"),
        ("uidmapping=0:1", "uidmapping: 0:1: expected ON-DISK:SHOWN:LENGTH, three numbers a range"),
        ("uidmapping=a:b:c", "uidmapping: a:b:c: `a` is not an id"),
        ("gidmapping=0:0:9:5:50:1", "ranges 0:0:9 and 5:50:1 overlap"),
        ("lowerdir=a::b:c", "lowerdir: after the first `::`"),
        ("lowerdir=", "lowerdir: a layer has an empty path"),
        ("upperdir=,workdir=w", "upperdir: the path is empty"),
        ("upperdir=u", "workdir: missing; upperdir also needs workdir=DIR"),
        ("context=\"a,b", "context: `\"a,b` is not valid; expected a double quote at both ends"),
        ("plugins=/x.so", "plugins: plugins are not supported"),
        ("lowerdir", "lowerdir: needs a value: lowerdir=DIR[:DIR...][::DIR...]"),
        ("threaded", "threaded: needs a value: threaded=0|1"),
        ("fsname", "fsname: needs a value: fsname=TEXT"),
        ("volatile=1", "volatile: takes no value"),
        ("ro=1", "ro: takes no value"),
        ("io=\u{1b}[31m\nx", "io: `\\u{1b}[31m\\nx` is not valid"),
    ];
    for (text, part) in table {
        assert!(error(text).contains(part), "{text}: {}", error(text));
    }
    let long = error(&format!("io={}", "x".repeat(100_000)));
    assert!(long.len() < 200, "{long}");
    let bytes = OsString::from_vec(b"lowerdir=l,timeout=\xff".to_vec());
    assert_eq!(Options::parse(&[bytes]).unwrap_err().option, "timeout");
}

#[test]
fn lowerdir_is_required() {
    for text in ["", "upperdir=u,workdir=w", "ro"] {
        assert_eq!(parse(text).unwrap_err().option, "lowerdir", "{text}");
    }
    assert_eq!(Options::parse::<&str>(&[]).unwrap_err().option, "lowerdir");
}

#[test]
fn workdir_alone_is_ignored_with_a_warning() {
    let options = parse("lowerdir=l,workdir=w").unwrap();
    assert_eq!(options.upper, None);
    assert_eq!(options.warnings.len(), 1);
    assert!(options.warnings[0].contains("workdir"), "{:?}", options.warnings);
}

#[test]
fn the_table_has_no_row_twice() {
    let mut rows: Vec<String> = table::all().map(table::OptionSpec::syntax).collect();
    let count = rows.len();
    rows.sort();
    rows.dedup();
    assert_eq!(rows.len(), count);
}

proptest! {
    #[test]
    fn two_texts_equal_their_concatenation(
        first in "(lowerdir=[a-z:]{1,5}|ro|timeout=[0-9]|fsync=[01]|,){0,1}",
        second in "(lowerdir=[a-z:]{1,5}|rw|volatile|zzz|,){0,1}",
    ) {
        let joined = Options::parse(&[format!("{first},{second}")]);
        prop_assert_eq!(Options::parse(&[first, second]), joined);
    }
}
