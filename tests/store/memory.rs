//! What an import takes does not depend on how much there is to import.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::program::Program;
use crate::support::Tar;

/// Names and records of 200,000 entries are 43 MB.
#[test]
fn a_layer_of_many_entries_is_imported_in_little_memory() {
    const ENTRIES: usize = 200_000;
    let program = Program::new();
    let mut import = Command::new("prlimit")
        .args(["--data=41943040", env!("CARGO_BIN_EXE_plyfs"), "image", "import", "-", "many"])
        .env("PLYFS_STORE", program.store())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input = import.stdin.take().unwrap();
    let mut archive = zstd::stream::write::Encoder::new(input, 1).unwrap();
    let empty = Tar::new().file(&"x".repeat(98), "").0;
    let other: u32 = empty[..148].iter().chain(&empty[156..]).map(|byte| u32::from(*byte)).sum();
    let mut header = empty;
    let mut written = Ok(());
    for entry in 0..ENTRIES {
        // In three directories, and in no order.
        let number = format!("{}/{:07}", entry % 3, entry * 7919 % ENTRIES);
        header[..number.len()].copy_from_slice(number.as_bytes());
        let name: u32 = number.bytes().map(u32::from).sum();
        let sum = other + 8 * 32 + name - number.len() as u32 * u32::from(b'x');
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        written = written.and_then(|()| archive.write_all(&header));
    }
    written = written.and_then(|()| archive.write_all(&[0; 1024]));
    let written = written.and_then(|()| archive.finish().map(drop));
    let output = import.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    written.unwrap();
    let image = &program.json("image inspect many")[0];
    let layer = image["RootFS"]["Layers"][0].as_str().unwrap().replace("sha256:", "layers/");
    let meta = std::fs::read(program.store().join(layer).join("meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
    assert_eq!(meta["entries"], ENTRIES);
    assert!(program.says("store verify").ends_with("no problems\n"));
}
