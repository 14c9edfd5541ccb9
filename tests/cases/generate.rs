//! Random cases. Names come from a small pool, so that layers and operations meet.

use proptest::test_runner::TestRng;
use rand::Pick;

use crate::cases::acl::{ACCESS, Acl, DEFAULT};
use crate::cases::case::Case;
use crate::cases::initial::{build, drop_aliases};
use crate::cases::layer::{Data, Layer, LayerSpec, Meta, layer, meta};
use crate::cases::model::{CAPABILITY, Kind};
use crate::cases::profile::{Marks, Ops, Profile};
use crate::cases::text::{Text, t};

mod layers;
mod ops;
mod rand;

const PLAIN_NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const ODD_NAMES: [&str; 13] = [
    ".wh.a",
    ".wh.b",
    ".wh..wh..opq",
    ".wh..",
    "{n*255}",
    "{m*252}",
    "{w*251}",
    "%FF%FE",
    "x%0Ay",
    ".wh",
    ".wh.",
    "...",
    "%20",
];

struct Generator<'a> {
    rng: &'a mut TestRng,
    profile: Profile,
    names: Vec<Text>,
}

/// A case of up to eight layers and up to 60 operations.
pub fn case(profile: Profile, rng: &mut TestRng) -> Case {
    let plain = 2 + rng.below(4);
    let odd = rng.below(3);
    let names = PLAIN_NAMES[..plain].iter().map(|name| t(name)).collect();
    let mut generator = Generator { rng, profile, names };
    for _ in 0..odd {
        let name = t(generator.rng.pick(&ODD_NAMES));
        if profile.can_have(&name) {
            generator.names.push(name);
        }
    }
    let mut layers = generator.layers();
    drop_aliases(&mut layers);
    let ops = generator.ops(&build(&layers));
    let compare_every = generator.rng.pick(&[1, 1, 1, 5, 1000]);
    Case { layers, ops, compare_every }
}

impl Generator<'_> {
    fn name(&mut self) -> Text {
        self.rng.pick(&self.names)
    }

    /// A path of one to three names.
    fn path(&mut self) -> Text {
        (0..1 + self.rng.below(3)).fold(Text::default(), |path, _| path.join(&self.name()))
    }

    fn data(&mut self) -> Data {
        let len = self.rng.pick(&[0, 1, 10, 100, 4096, 5000, 20000]);
        Data { len, fill: self.rng.below(256) as u8, sparse: self.rng.one_in(5) }
    }

    fn file_mode(&mut self) -> u32 {
        let mode =
            self.rng.pick(&[0o644, 0o600, 0o755, 0o4755, 0o2755, 0o6711, 0o640, 0o000, 0o444]);
        if self.profile.privileged { mode } else { mode | 0o600 }
    }

    fn dir_mode(&mut self) -> u32 {
        let mode = self.rng.pick(&[0o755, 0o755, 0o700, 0o2755, 0o1777, 0o500, 0o000]);
        if self.profile.privileged { mode } else { mode | 0o700 }
    }

    fn ids(&mut self) -> (u32, u32) {
        if self.profile.privileged {
            self.rng.pick(&[(0, 0), (0, 0), (1000, 1000), (0, 5)])
        } else {
            crate::cases::layer::own_ids()
        }
    }

    /// Within what ext4 can store: 1901 to 2446.
    fn time(&mut self) -> (i64, u32) {
        self.rng.pick(&[
            (1_000_000_000, 0),
            (1_234_567_890, 123_456_789),
            (-1, 999_999_999),
            (-(1 << 31), 0),
            (0, 0),
            (0x3_7fff_ffff, 0),
        ])
    }

    fn device(&mut self) -> (u32, u32) {
        self.rng.pick(&[(1, 3), (7, 5), (0, 1), (4095, 1_000_000)])
    }

    fn xattr_name(&mut self) -> Text {
        let user = ["user.a", "user.b", "user.overlay.opaque", "user.fuseoverlayfs.origin"];
        let trusted = ["trusted.a", "trusted.b", "trusted.overlay.redirect", "trusted.overlay.x"];
        let privileged = self.profile.privileged && self.rng.one_in(2);
        let names = if privileged { &trusted } else { &user };
        t(self.rng.pick(if self.profile.private_attributes { names } else { &names[..2] }))
    }

    fn acl(&mut self) -> Text {
        self.rng.pick(&[Acl::minimal(), Acl::with_user(), Acl::with_group()]).value()
    }

    /// Attributes need a file or directory, but for `trusted.`; a default list needs a directory.
    fn meta(&mut self, mode: u32, kind: &Kind) -> Meta {
        let (uid, gid) = self.ids();
        let (sec, nsec) = self.time();
        let meta = meta(mode).owner(uid, gid).mtime(sec, nsec);
        let name = self.xattr_name();
        let user = matches!(kind, Kind::File(_) | Kind::Dir(_)) && name.0.starts_with(b"user.");
        match self.rng.below(8) {
            0 | 1 if user || name.0.starts_with(b"trusted.") => {
                let value = self.rng.pick(&["", "v", "{v*200}"]);
                meta.xattr(name, t(value))
            }
            4 if self.profile.privileged && matches!(kind, Kind::File(_)) => {
                meta.xattr(t(CAPABILITY), capability())
            }
            2 | 3 if !self.profile.acls => meta,
            2 if matches!(kind, Kind::Dir(_)) => meta.xattr(t(DEFAULT), self.acl()),
            3 if !matches!(kind, Kind::Symlink(_)) => {
                let access = Acl::parse(&self.acl());
                if access.is_extended() { meta.xattr(t(ACCESS), access.value()) } else { meta }
            }
            _ => meta,
        }
    }
}

/// A value of `security.capability` (`struct vfs_cap_data`, revision 2): may bind to any port.
fn capability() -> Text {
    Text([0x0200_0001u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect())
}
