//! What needs the lower layers: whiteouts, redirects and metacopy files without a counterpart.

use std::fs;

use rustix::io::Errno;

use crate::needs_root;
use crate::support::posix::{errno, get_xattr, names, set_xattr, text};
use crate::support::{Program, Union};

const LOWER: &str = "
f d/file text=lower
f tree/sub/one text=one
";

#[test]
fn a_whiteout_of_what_no_lower_layer_has_is_noted() {
    needs_root!();
    let upper = "w d/file\nw d/gone\nf d/.wh.never\nw tree/sub";
    let mut union = Union::new().lower(LOWER).lower("w tree\nf bottom").upper(upper).mount();
    assert_eq!(names(union.path("")), ["bottom", "d", "tree"]);
    union.unmount();
    let found = "whiteout-over-nothing upper/d/.wh.never\nwhiteout-over-nothing upper/d/gone";
    union.check(&["--repair"]).expect(0, found);
    // Without the lower layers nothing can be said of them.
    union.check_alone(&[]).expect(0, "dot-whiteout upper/d/.wh.never");
}

/// What a lower layer hides from those below it is not there.
#[test]
fn whiteouts_are_compared_with_the_union_of_the_lower_layers() {
    needs_root!();
    let union =
        Union::new().lower("w a\no d").lower("f a\nf d/x\nf e/x").upper("w a\nw d/x\nw e/x");
    union
        .layers()
        .check(&[])
        .expect(0, "whiteout-over-nothing upper/a\nwhiteout-over-nothing upper/d/x");
}

#[test]
fn redirects_of_the_kernel_are_followed() {
    needs_root!();
    let mut union = Union::new().lower(LOWER).program(Program::Kernel);
    union = union.option("redirect_dir=on");
    let mut union = union.mount();
    fs::rename(union.path("tree/sub"), union.path("tree/moved")).unwrap();
    fs::rename(union.path("tree"), union.path("d/tree")).unwrap();
    fs::remove_file(union.path("d/tree/moved/one")).unwrap();
    fs::create_dir(union.path("tree")).unwrap();
    union.unmount();
    union.check(&[]).expect(0, "");

    // A copy with all attributes, as a backup makes it, shows the lower directory twice.
    let from = union.upper("d/tree");
    fs::create_dir(union.upper("copy")).unwrap();
    let redirect = get_xattr(&from, "trusted.overlay.redirect").unwrap();
    set_xattr(union.upper("copy"), "trusted.overlay.redirect", &redirect).unwrap();
    let checked = union.check(&["--repair"]);
    assert_eq!((checked.status, checked.findings.len()), (4, 1), "{checked:?}");
    assert!(checked.found().starts_with("redirect-duplicate upper/"), "{checked:?}");
    union.switch(Program::Kernel, &["redirect_dir=on"]);
    assert_eq!(names(union.path("copy")), ["sub"]);
}

#[test]
fn a_redirect_to_nothing_shows_the_upper_part_alone() {
    needs_root!();
    let upper = "d a trusted.overlay.redirect=/tree/absent\nf a/own text=own
        d b trusted.overlay.redirect=absent
        d c trusted.overlay.redirect=/d/file
        d tree trusted.overlay.redirect=/d\nd tree/sub trusted.overlay.redirect=absent";
    let mut union = Union::new().lower(LOWER).upper(upper).mount();
    assert_eq!(names(union.path("a")), ["own"]);
    assert_eq!(names(union.path("tree")), ["file", "sub"]);
    union.unmount();
    let found = "redirect-dangling upper/a
        redirect-dangling upper/b
        redirect-dangling upper/c
        redirect-dangling upper/tree/sub";
    union.check(&["--repair"]).expect(4, found);
    union.check_alone(&[]).expect(0, "");
}

#[test]
fn a_metacopy_file_without_data_is_found_and_one_with_data_is_not() {
    needs_root!();
    let upper = "f d/file text=xxxxx trusted.overlay.metacopy=\"\"
        f d/lost text=xxxxx trusted.overlay.metacopy=\"\"
        f d/other text=xxxxx trusted.overlay.metacopy=\"\" trusted.overlay.redirect=/tree/sub/one
        f d/data text=xxxx trusted.overlay.metacopy=\"\" trusted.overlay.redirect=/store/17";
    let layers = Union::new().lower(LOWER).data_layer("f store/17 text=data").upper(upper);
    let mut union = layers.mount();
    assert_eq!(text(union.path("d/file")), "lower");
    assert_eq!(text(union.path("d/data")), "data");
    assert_eq!(errno(fs::read(union.path("d/lost"))), Errno::IO);
    union.unmount();
    union.check(&["--repair"]).expect(4, "metacopy-dangling upper/d/lost");
}

#[test]
fn metacopy_files_of_the_kernel_are_sound() {
    needs_root!();
    let options = ["metacopy=on", "redirect_dir=on", "index=on"];
    let mut union = Union::new().lower(LOWER).program(Program::Kernel);
    for option in options {
        union = union.option(option);
    }
    let mut union = union.mount();
    crate::support::posix::chmod(union.path("d/file"), 0o600).unwrap();
    fs::rename(union.path("d/file"), union.path("tree/renamed")).unwrap();
    fs::rename(union.path("tree"), union.path("d/tree")).unwrap();
    union.unmount();
    assert!(get_xattr(union.upper("d/tree/renamed"), "trusted.overlay.metacopy").is_ok());
    union.check(&[]).expect(0, "");
}
