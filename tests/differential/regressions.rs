//! Minimised failures of the past, as readable code.

use crate::cases::case::Case;
use crate::cases::layer::{Data, Item::*, Layer, Leaf::*, layer, meta};
use crate::cases::model::CAPABILITY;
use crate::cases::op::{Change::*, Op, Op::*, Target::*};
use crate::cases::text::{Text, t};
use crate::setup::{Setup, Setup::*};
use crate::{isolated, not_with};

fn check(setup: Setup, layers: Vec<Layer>, ops: &[Op]) {
    rustix::process::umask(rustix::fs::Mode::empty());
    let case = Case { layers, ops: ops.to_vec(), compare_every: 1 };
    if let Err(why) = setup.run(&case) {
        panic!("{setup:?}: {why}");
    }
}

fn one_byte() -> Data {
    Data { len: 1, fill: 0, sparse: false }
}

fn capability() -> Text {
    Text([0x0200_0001u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect())
}

#[test]
fn a_write_by_root_to_a_file_with_capabilities_keeps_its_set_id_bits() {
    not_with!("writeback=1", "xattr_permissions");
    isolated!(Root, {
        let with = meta(0o6711).xattr(t(CAPABILITY), capability());
        let layers = vec![layer(vec![]), layer(vec![Leaf(t("b"), with, File(one_byte()))])];
        check(Default, layers, &[Write(At(t("b")), 0, one_byte(), false)]);
    });
}

#[test]
fn root_of_a_user_namespace_who_cuts_a_lower_file_takes_its_set_id_bits() {
    not_with!("xattr_permissions");
    isolated!(UserNamespace, {
        let data = Data { len: 4096, fill: 57, sparse: false };
        let layers = vec![layer(vec![]), layer(vec![Leaf(t("b/b"), meta(0o2755), File(data))])];
        for size in [100, 4096, 5000] {
            check(UserNamespace, layers.clone(), &[SetAttr(At(t("b/b")), Size(size, 0))]);
        }
    });
}
