//! The program is killed at random moments of a load: at a system call of its own, or at some time.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::program::{Program, TestImage, archive, gzip};
use crate::random::Random;
use crate::support::Tar;

/// What a load does to a store: it makes files, writes them, gives them names and makes all of it last.
const CALLS: &str = "trace=openat,write,pwrite64,ftruncate,mkdir,mkdirat,rename,renameat2,unlink,\
                     unlinkat,rmdir,fsync,syncfs,flock,fchmod,chmod";

/// Small files and a large one, in several layers.
fn image() -> Vec<u8> {
    let mut image = TestImage::small();
    let small = |tar: Tar, n| tar.file(&format!("many/{n}"), &format!("content {n}"));
    let large: String = (0..300_000).map(|n| format!("{n:x}")).collect();
    image.layers.push((0..40).fold(Tar::new(), small).end());
    image.layers.push(Tar::new().file("large", &large).file("many/.wh.3", "").end());
    archive(&image.oci("app", gzip, "+gzip"))
}

fn loading(program: &Program) -> Command {
    let mut load = Command::new(env!("CARGO_BIN_EXE_plyfs"));
    load.args(["image", "load", "-q", "image.tar"]);
    load.current_dir(program.dir.path()).env("PLYFS_STORE", program.store());
    load.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    load
}

fn traced(program: &Program, options: &[&str]) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o", "calls", "-e", CALLS]).args(options);
    let load = loading(program);
    traced.arg(load.get_program()).args(load.get_args());
    traced.current_dir(program.dir.path()).env("PLYFS_STORE", program.store());
    traced.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    traced
}

/// The calls of a load, each with how many of its name its thread had made by then.
fn calls(program: &Program) -> Vec<(String, u64)> {
    assert!(traced(program, &[]).status().unwrap().success());
    let trace = std::fs::read_to_string(program.path("calls")).unwrap();
    // `THREAD NAME(ARGUMENTS...`; but `THREAD <... NAME resumed>` has begun before.
    let begun = trace.lines().filter_map(|line| line.split_once('(')?.0.split_once(' '));
    let mut made = BTreeMap::new();
    let mut calls = Vec::new();
    for (thread, name) in begun.filter(|(_, name)| !name.contains('<')) {
        let count = made.entry((thread, name)).or_insert(0);
        *count += 1;
        calls.push((name.trim().to_owned(), *count));
    }
    calls
}

/// The store is sound, the same load succeeds, and nothing of the one that died stays.
fn recovers(program: &Program, when: &str) {
    let verified = program.says("store verify --full");
    assert!(verified.ends_with("no problems\n"), "{when}: {verified}");
    assert_eq!(program.says("image load -q image.tar"), "Loaded image: app:latest\n", "{when}");
    let verified = program.says("store verify --full");
    assert!(
        verified.starts_with("1 image, 4 layers, 44 contents: no problems"),
        "{when}: {verified}"
    );
    program.says("image rm app");
    program.says("store gc");
    assert_eq!(program.stored(), [""; 0], "{when}");
}

/// 20 times, or 200 with `PLYFS_SOAK_SECONDS`.
#[test]
fn a_load_that_is_killed_anywhere_leaves_a_sound_store() {
    let times = if std::env::var_os("PLYFS_SOAK_SECONDS").is_some() { 200 } else { 20 };
    let mut random = Random::new();
    let program = Program::new();
    program.says("image ls");
    program.write("image.tar", &image());
    let calls = calls(&program);
    assert!(calls.len() > 200, "{} calls", calls.len());
    recovers(&program, "untouched");
    let mut killed = 0;
    for time in 0..times {
        let when = if time % 4 == 3 {
            let wait = Duration::from_micros(random.below(120_000));
            let mut load = loading(&program).spawn().unwrap();
            std::thread::sleep(wait);
            load.kill().unwrap();
            killed += u32::from(load.wait().unwrap().signal() == Some(9));
            format!("after {wait:?}, {random}")
        } else {
            let (name, count) = &calls[random.below(calls.len() as u64) as usize];
            let inject = format!("inject={name}:signal=KILL:when={count}");
            let died = traced(&program, &["-e", &inject]).status().unwrap();
            killed += u32::from(died.signal() == Some(9));
            format!("at {name} {count}, {random}")
        };
        recovers(&program, &when);
    }
    println!("{killed} of {times} were killed");
    assert!(killed > times / 2, "{killed} of {times} were killed");
}
