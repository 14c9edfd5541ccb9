//! Minimised failures of the past, as readable code.

use crate::cases::acl::{ACCESS, Acl};
use crate::cases::case::Case;
use crate::cases::layer::{
    Data, Item, Item::*, Layer, Leaf::*, Mark::*, Mode, Prefix::*, Whiteout::*,
};
use crate::cases::layer::{layer, meta};
use crate::cases::model::CAPABILITY;
use crate::cases::op::{Change::*, How::*, Op, Op::*, Redirect::*, Target::*, new};
use crate::cases::text::{Text, t};
use crate::setup::{Setup, Setup::*};

fn check(setup: Setup, layers: Vec<Layer>, ops: &[Op]) {
    rustix::process::umask(rustix::fs::Mode::empty());
    // To compare is to look at everything, which may itself hide what is wrong.
    for compare_every in [1, usize::MAX] {
        let case = Case { layers: layers.clone(), ops: ops.to_vec(), compare_every };
        if let Err(why) = setup.run(&case) {
            panic!("{setup:?}, compared every {compare_every}: {why}");
        }
    }
}

/// As [`check`], with an upper layer in each place and with each way to rename.
fn check_all(layers: &[Layer], ops: &[Op]) {
    for setup in [Union(Copy), Union(Mark), UpperInMemory(Copy), UpperInMemory(Mark)] {
        check(setup, layers.to_vec(), ops);
    }
}

fn one_byte() -> Data {
    Data { len: 1, fill: 0, sparse: false }
}

fn file(path: &str) -> Item {
    Leaf(t(path), meta(0o644), File(one_byte()))
}

fn dir(path: &str) -> Item {
    Dir(t(path), meta(0o755), vec![])
}

fn moved(from: &str, to: &str) -> Op {
    Rename(t(from), t(to), Replace)
}

fn capability() -> Text {
    Text([0x0200_0001u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

// Marks in the upper layer that the mount itself would not write.

#[test]
fn a_file_made_over_a_dot_whiteout_is_there_after_a_remount() {
    let upper = layer(vec![Whiteout(t("d/f"), DotWh)]);
    let ops =
        [Create(t("d/f"), new(0o644)), Remount, Unlink(t("d/f")), MakeDir(t("d/f"), new(0o755))];
    check_all(&[upper, layer(vec![])], &ops);
}

#[test]
fn a_file_hidden_by_a_dot_whiteout_beside_it_gives_way() {
    let upper = layer(vec![file("d/f"), Whiteout(t("d/f"), DotWh)]);
    for setup in [Union(Copy), DotFiles] {
        let layers = vec![upper.clone(), layer(vec![])];
        check(setup, layers, &[Create(t("d/f"), new(0o644)), Unlink(t("d/f"))]);
    }
}

#[test]
fn moving_a_directory_does_not_reveal_what_a_dot_whiteout_in_it_hides() {
    let upper = layer(vec![file("d/f"), Whiteout(t("d/f"), DotWh)]);
    for setup in [Union(Copy), UpperInMemory(Copy), DotFiles] {
        check(setup, vec![upper.clone(), layer(vec![file("d/g")])], &[moved("d", "e")]);
    }
}

#[test]
fn a_lower_directory_called_like_a_mark_is_copied_up_beside_that_mark() {
    let upper = layer(vec![Whiteout(t("f"), DotWh)]);
    check_all(
        &[upper, layer(vec![file(".wh.f/g"), file("f")])],
        &[Create(t(".wh.f/h"), new(0o644))],
    );
}

#[test]
fn device_whiteouts_are_understood_where_dot_files_are_written() {
    let upper = layer(vec![Whiteout(t("a/b/c"), Device), Whiteout(t("d/e"), Device)]);
    let lower = layer(vec![file("a/b/c"), file("a/b/d"), file("d/e")]);
    check(DotFiles, vec![upper, lower], &[moved("a/b", "d/e")]);
}

#[test]
fn a_directory_with_an_opaque_file_can_be_replaced() {
    let upper = layer(vec![Dir(t("old"), meta(0o755), vec![OpaqueFile]), dir("new")]);
    check_all(&[upper, layer(vec![])], &[moved("new", "old")]);
}

#[test]
fn a_lower_file_called_like_a_mark_of_the_upper_layer_is_deleted_and_moved() {
    let layers = [layer(vec![Whiteout(t("f"), DotWh)]), layer(vec![file(".wh.f"), file("f")])];
    check_all(&layers, &[Unlink(t(".wh.f"))]);
    check_all(&layers, &[moved(".wh.f", "g")]);
}

#[test]
fn a_link_called_like_a_mark_is_copied_up_as_what_it_is() {
    let lower = layer(vec![file("d/f"), HardLink(t("d/.wh.g"), t("d/f")), file("d/g")]);
    check_all(&[layer(vec![]), lower], &[moved("d", "e")]);
}

// Redirects.

#[test]
fn a_redirect_that_leads_nowhere_stays_that_way_after_a_rename() {
    let upper = layer(vec![Dir(t("a/b"), meta(0o755), vec![Redirect(User, t("e"))])]);
    check_all(&[upper, layer(vec![file("e/f")])], &[moved("a/b", "c")]);
}

#[test]
fn a_redirect_does_not_lead_past_an_opaque_root() {
    let middle = layer(vec![file("a/f")]).marks(vec![Opaque(User)]);
    let bottom = layer(vec![file("a/hidden")]);
    check_all(&[layer(vec![]), middle, bottom], &[moved("a", "b")]);
}

#[test]
fn a_relative_redirect_is_relative_to_where_an_absolute_one_led() {
    let top = layer(vec![
        Whiteout(t("x/y"), Device),
        Dir(t("a"), meta(0o755), vec![Redirect(User, t("/x/y"))]),
    ]);
    let middle = layer(vec![
        Whiteout(t("x/z"), Device),
        Dir(t("x/y"), meta(0o755), vec![Redirect(User, t("z"))]),
    ]);
    let bottom = layer(vec![file("x/z/right"), file("z/wrong")]);
    check(ReadOnly, vec![top, middle, bottom], &[]);
}

#[test]
fn a_renamed_directory_that_was_already_redirected_below_keeps_its_content() {
    let middle = layer(vec![
        Whiteout(t("b"), Device),
        Dir(t("c"), meta(0o755), vec![Redirect(User, t("/b/d"))]),
    ]);
    let bottom = layer(vec![file("b/d/e/f")]);
    check_all(&[layer(vec![file("g/h")]), middle, bottom], &[moved("c/e", "g/i")]);
}

#[test]
fn a_metacopy_below_a_redirected_metacopy_finds_its_data() {
    let top = layer(vec![Leaf(t("a/f"), meta(0o644), Metacopy(User, Some(t("/b/f")), 0))]);
    let middle = layer(vec![Leaf(t("b/f"), meta(0o644), Metacopy(User, None, 0))]);
    let bottom = layer(vec![file("b/f")]);
    check(ReadOnly, vec![top, middle, bottom], &[]);
}

#[test]
fn a_metacopy_gets_its_data_from_a_data_only_layer_and_moves() {
    let redirect = Some(t("/objects/1"));
    let lower = layer(vec![Leaf(t("a/f"), meta(0o644), Metacopy(User, redirect, 0))]);
    let data = layer(vec![file("objects/1")]).data_only();
    let ops = [moved("a", "b"), Write(At(t("b/f")), 5, one_byte(), true)];
    check_all(&[layer(vec![]), lower, data], &ops);
}

// Metacopy files of the upper layer.

#[test]
fn an_unlinked_metacopy_file_keeps_its_data() {
    let upper = layer(vec![Leaf(t("a/f"), meta(0o644), Metacopy(User, None, 0))]);
    let layers = [upper, layer(vec![file("a/f"), file("a/g")])];
    let read = Read(Held(0), 0, 10);
    check_all(&layers, &[Hold(t("a/f"), 0), Unlink(t("a/f")), read.clone()]);
    check_all(&layers, &[Hold(t("a/f"), 0), moved("a/g", "a/f"), read]);
}

#[test]
fn a_metacopy_file_keeps_set_id_bits_and_capabilities_when_its_data_comes() {
    let xattrs = if is_root() { vec![(t(CAPABILITY), capability())] } else { vec![] };
    let mut attributes = meta(0o6755);
    attributes.xattrs.extend(xattrs);
    let upper = layer(vec![Leaf(t("f"), attributes, Metacopy(User, None, 0))]);
    check_all(&[upper, layer(vec![file("f")])], &[moved("f", "g")]);
}

// Hard links.

#[test]
fn a_second_name_of_a_lower_file_can_be_renamed() {
    let lower = layer(vec![file("a/f"), HardLink(t("b/f"), t("a/f"))]);
    check_all(&[layer(vec![]), lower], &[Lookup(t("a/f")), moved("b/f", "a/g")]);
}

#[test]
fn the_link_count_of_an_indexed_file_survives_two_remounts() {
    let lower = layer(vec![file("a/f"), HardLink(t("b/f"), t("a/f"))]);
    let touched = SetAttr(At(t("a/f")), Times(None, Some((0, 0))));
    let ops = [touched, Remount, Write(At(t("a/f")), 0, one_byte(), true), Unlink(t("b/f"))];
    check_all(&[layer(vec![]), lower], &ops);
}

#[test]
fn a_directory_tells_the_number_of_a_link_that_was_moved_into_the_upper_layer() {
    let lower = layer(vec![file("a/b/f"), HardLink(t("c/f"), t("a/b/f"))]);
    check_all(&[layer(vec![]), lower], &[moved("c", "d"), moved("a/b", "e")]);
}

#[test]
fn a_file_stays_one_node_when_it_loses_all_names_but_one() {
    let upper = layer(vec![file("a/f"), HardLink(t("b/f"), t("a/f")), file("g")]);
    let layers = [upper, layer(vec![])];
    check_all(&layers, &[Lookup(t("a/f")), Unlink(t("a/f")), Lookup(t("b/f"))]);
    check_all(&layers, &[Lookup(t("a/f")), moved("g", "a/f"), Lookup(t("b/f"))]);
}

#[test]
fn an_ordinary_user_can_change_a_symbolic_link_with_two_names() {
    if is_root() {
        return;
    }
    let lower = layer(vec![Leaf(t("a"), meta(0o777), Symlink(t("to")))]);
    let ops = [Link(At(t("a")), t("b")), SetAttr(At(t("a")), Times(None, Some((0, 0))))];
    check_all(&[layer(vec![]), lower], &ops);
}

// What may not change when something is only prepared.

#[test]
fn moving_a_directory_with_whiteouts_in_it_leaves_its_modification_time() {
    let lower = layer(vec![file("a/f"), file("a/b/f")]);
    let times = SetAttr(At(t("a")), Times(None, Some((0, 0))));
    check_all(&[layer(vec![]), lower], &[Unlink(t("a/f")), times, moved("a", "c")]);
}

#[test]
fn moving_a_directory_with_hard_links_in_it_leaves_its_modification_time() {
    let lower = layer(vec![file("a/b/f"), HardLink(t("c/f"), t("a/b/f"))]);
    let touched = SetAttr(At(t("c/f")), Times(None, Some((0, 0))));
    check_all(&[layer(vec![]), lower], &[touched, moved("a", "d")]);
}

// Attributes.

#[test]
fn an_ordinary_user_can_write() {
    let ops = [Create(t("f"), new(0o644)), Write(At(t("f")), 0, one_byte(), true)];
    check_all(&[layer(vec![]), layer(vec![])], &ops);
}

#[test]
fn a_symbolic_link_keeps_its_target_where_attributes_are_stored() {
    if !is_root() {
        return;
    }
    let lower = layer(vec![Leaf(t("a/s"), meta(0o777), Symlink(t("target")))]);
    check(StoredAttributes, vec![layer(vec![]), lower], &[moved("a", "b")]);
}

#[test]
fn a_special_file_called_like_a_mark_is_there_where_attributes_are_stored() {
    if !is_root() {
        return;
    }
    let lower = layer(vec![Leaf(t("a/.wh.b"), meta(0o644), Fifo)]);
    check(StoredAttributes, vec![layer(vec![]), lower], &[moved("a", "b")]);
}

#[test]
fn a_change_of_owner_drops_capabilities_where_attributes_are_stored() {
    if !is_root() {
        return;
    }
    let upper =
        layer(vec![Leaf(t("f"), meta(0o644).xattr(t(CAPABILITY), capability()), File(one_byte()))]);
    let owned = SetAttr(At(t("f")), Owner(Some(1000), None));
    check(StoredAttributes, vec![upper, layer(vec![])], &[owned]);
}

#[test]
fn a_change_of_mode_changes_the_access_list() {
    let lower = layer(vec![Leaf(
        t("f"),
        meta(0o644).xattr(t(ACCESS), Acl::with_user().value()),
        File(one_byte()),
    )]);
    check_all(&[layer(vec![]), lower], &[SetAttr(At(t("f")), Permissions(Mode(0o640)))]);
}

#[test]
fn a_directory_called_like_a_mark_and_hidden_is_no_mark() {
    let upper = layer(vec![
        Dir(t("d/.wh..wh..opq"), meta(0o755), vec![]),
        Whiteout(t("d/.wh..wh..opq"), DotWh),
    ]);
    let layers = [upper, layer(vec![file("d/f")])];
    check_all(&layers, &[Create(t("d/.wh..wh..opq"), new(0o644)), Remount]);
}

#[test]
fn a_lower_file_called_like_a_mark_of_the_upper_layer_is_copied_up() {
    let upper = layer(vec![Whiteout(t("a/b"), DotWh)]);
    let lower = layer(vec![dir("d"), file("a/.wh.b/f")]);
    let ops = [Rename(t("d"), t("a"), Exchange), Write(At(t("d/.wh.b/f")), 0, one_byte(), false)];
    check_all(&[upper, lower], &ops);
}

#[test]
fn an_open_directory_in_whose_place_another_was_moved_keeps_its_number() {
    let upper = layer(vec![Whiteout(t("a/x"), Device), dir("b")]);
    let mut ops = vec![Hold(t("a"), 0), Rename(t("b"), t("a"), Replace)];
    // A filesystem gives numbers again that are free.
    ops.extend(["c", "d", "e", "f", "g"].map(|name| Create(t(name), new(0o644))));
    check_all(&[upper, layer(vec![file("a/x")])], &ops);
}
