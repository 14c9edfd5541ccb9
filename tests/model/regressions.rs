//! Minimised failures of the past, as readable code.
use crate::case::{Case, Redirect::*, Setup, Setup::*};
use crate::layer::{Data, Item::*, Layer, Leaf::*, Mark::*, Prefix::*, Whiteout::*, layer, meta};
use crate::op::{How::*, Op, Op::*, Target::*, new};
use crate::text::t;

fn check(setup: Setup, layers: Vec<Layer>, ops: &[Op]) {
    let case = Case { setup, layers, ops: ops.to_vec(), compare_every: 1 };
    if let Err(why) = case.run() {
        panic!("{why}");
    }
}
#[test]
fn dbg_n() {
    check(
        UpperInMemory(Mark),
        vec![
            layer(vec![]),
            layer(vec![Whiteout(t("e/a"), Device)]).marks(vec![Opaque(User)]),
            layer(vec![Leaf(t("e/e"), meta(0o644), File(Data { len: 1, fill: 0, sparse: false }))]),
        ],
        &[Rename(t("e"), t("c"), Replace)],
    );
}
