//! Eight processes at once load, mount, remove and collect the same images, for 5 seconds or `PLYFS_SOAK_SECONDS`: what
//! somebody has a name for is never lost.

use std::time::{Duration, Instant};

use crate::program::{Program, TestImage, archive, gzip};
use crate::random::Random;
use crate::support::Tar;

const PROCESSES: u64 = 8;

/// One of three images, which share layers.
fn image(number: u64) -> TestImage {
    let mut image = TestImage::small();
    for layer in 0..number {
        image.layers.push(Tar::new().file("own", &format!("layer {layer}")).end());
    }
    image
}

/// One of `programs` that must succeed, or fail for the reason that somebody else has been faster.
fn does(program: &Program, words: &str, or_fails: &str) -> bool {
    let output = program.run(words);
    let error = String::from_utf8_lossy(&output.stderr);
    let expected = !or_fails.is_empty() && error.contains(or_fails);
    assert!(output.status.success() || expected, "{words}: {error}");
    output.status.success()
}

fn work(program: &Program, process: u64, mut random: Random, end: Instant) {
    let can_mount = std::fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    let missing = "no image `";
    while Instant::now() < end {
        let number = random.below(3);
        match random.below(8) {
            0..=2 => {
                does(program, &format!("image load -q -t app:{number} {number}.tar"), "");
            }
            3 | 4 => {
                does(program, &format!("image rm -f app:{number}"), missing);
            }
            5 => {
                does(program, "store gc", "");
            }
            6 => {
                let mine = format!("image load -q -t mine:{process} {number}.tar");
                does(program, &mine, "");
                assert!(program.says(&format!("image inspect mine:{process}")).contains("Layers"));
                let saved = program.path(&format!("{process}.saved"));
                does(program, &format!("image save -o {process}.saved mine:{process}"), "");
                std::fs::remove_file(saved).unwrap();
            }
            _ if can_mount => {
                let point = format!("mounted-{process}");
                if does(program, &format!("mount -r app:{number} {point}"), missing) {
                    // Not by this process: programs that other threads start just then would have the file open too.
                    let shell = program.path(&point).join("bin/sh");
                    let read = std::process::Command::new("cat").arg(shell).output().unwrap();
                    assert_eq!(read.stdout, b"shell");
                    program.says(&format!("umount {point}"));
                }
            }
            _ => eprintln!("/dev/fuse cannot be opened: nothing is mounted"),
        }
    }
}

#[test]
fn nothing_that_has_a_name_is_lost() {
    let soak = std::env::var("PLYFS_SOAK_SECONDS").map(|text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(soak.unwrap_or(5));
    let random = Random::new();
    let program = Program::new();
    for number in 0..3 {
        program.write(&format!("{number}.tar"), &archive(&image(number).oci("app", gzip, "+gzip")));
    }
    for process in 0..PROCESSES {
        std::fs::create_dir(program.path(&format!("mounted-{process}"))).unwrap();
    }
    program.says("image load -q -t kept 1.tar");
    std::thread::scope(|scope| {
        for process in 0..PROCESSES {
            let (program, random) = (&program, random.of_thread(process));
            scope.spawn(move || work(program, process, random, end));
        }
    });
    let verified = program.says("store verify --full");
    assert!(verified.ends_with("no problems\n"), "{random}: {verified}");
    program.says("image save -o kept.saved kept");
    let names = program.says("image ls --format json");
    for line in names.lines() {
        let image: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = match (image["Repository"].as_str().unwrap(), image["Tag"].as_str().unwrap()) {
            ("<none>", _) => image["ID"].as_str().unwrap().to_owned(),
            (name, tag) => format!("{name}:{tag}"),
        };
        program.says(&format!("image rm {name}"));
    }
    program.says("store gc");
    assert_eq!(program.stored(), [""; 0], "{random}");
}
