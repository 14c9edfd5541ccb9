//! A long walk of random changes to one file, compared with a file in memory at every step.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, copy_file_range, fallocate};

use crate::support::Union;
use crate::support::posix::{append, open_rw};
use crate::{needs_root, not_with};

const LARGEST: u64 = 300_000;

/// The generator of Numerical Recipes: the same walk in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What the file should hold.
struct Model(Vec<u8>);

impl Model {
    fn write(&mut self, offset: usize, data: &[u8]) {
        if self.0.len() < offset + data.len() {
            self.0.resize(offset + data.len(), 0);
        }
        self.0[offset..offset + data.len()].copy_from_slice(data);
    }

    fn zero(&mut self, offset: usize, length: usize) {
        let end = (offset + length).min(self.0.len());
        if offset < end {
            self.0[offset..end].fill(0);
        }
    }
}

#[test]
fn random_changes_give_the_bytes_of_a_file_in_memory() {
    needs_root!();
    not_with!("io=passthrough");
    for seed in 1..=6 {
        let mut dice = Dice(seed);
        let mut model = Model((0..200_000u32).map(|n| (n % 253) as u8).collect());
        let start = model.0.clone();
        let mut union =
            Union::new().lower_with(|dir| std::fs::write(dir.join("f"), start).unwrap()).mount();
        for step in 0..400 {
            // A reader from before the change has to see it too.
            let reader = File::open(union.path("f")).unwrap();
            let file = open_rw(union.path("f"));
            let what = change(&mut dice, &file, &mut model, &union);
            let (offset, length) = (dice.below(LARGEST), dice.below(50_000) as usize);
            compare(&reader, &model, offset, length, &format!("seed {seed}, step {step}: {what}"));
            drop((reader, file));
            if dice.below(80) == 0 {
                union.remount();
            }
        }
        let file = File::open(union.path("f")).unwrap();
        compare(&file, &model, 0, model.0.len() + 1, &format!("seed {seed}, end"));
    }
}

fn change(dice: &mut Dice, file: &File, model: &mut Model, union: &Union) -> String {
    let (offset, length) = (dice.below(LARGEST), 1 + dice.below(20_000));
    let (at, count) = (offset as usize, length as usize);
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match dice.below(8) {
        0..=2 => {
            let data = vec![dice.below(256) as u8; count];
            file.write_all_at(&data, offset).unwrap();
            model.write(at, &data);
            format!("write {offset} {length}")
        }
        3 => {
            file.set_len(offset).unwrap();
            model.0.resize(at, 0);
            format!("truncate {offset}")
        }
        4 => {
            fallocate(file, hole, offset, length).unwrap();
            model.zero(at, count);
            format!("punch {offset} {length}")
        }
        5 => {
            fallocate(file, FallocateFlags::empty(), offset, length).unwrap();
            let end = (at + count).max(model.0.len());
            model.0.resize(end, 0);
            format!("allocate {offset} {length}")
        }
        6 => {
            append(union.path("f"), "appended");
            let end = model.0.len();
            model.write(end, b"appended");
            "append".into()
        }
        _ => {
            // The ranges may not overlap.
            let count = count.min((LARGEST - offset) as usize);
            let (mut from, mut to) = (offset, LARGEST);
            let copied =
                copy_file_range(file, Some(&mut from), file, Some(&mut to), count).unwrap();
            let data = model.0.iter().skip(at).take(copied).copied().collect::<Vec<_>>();
            if copied > 0 {
                model.write(LARGEST as usize, &data);
            }
            format!("copy {offset} {copied}")
        }
    }
}

fn compare(file: &File, model: &Model, offset: u64, length: usize, when: &str) {
    assert_eq!(file.metadata().unwrap().len(), model.0.len() as u64, "size after {when}");
    let mut buffer = vec![0xee; length];
    let mut count = 0;
    while count < length {
        match file.read_at(&mut buffer[count..], offset + count as u64).unwrap() {
            0 => break,
            more => count += more,
        }
    }
    let start = (offset as usize).min(model.0.len());
    let expected = &model.0[start..(start + length).min(model.0.len())];
    let wrong = buffer[..count].iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(wrong, None, "first wrong byte counted from {offset} after {when}");
    assert_eq!(count, expected.len(), "bytes from {offset} after {when}");
}
