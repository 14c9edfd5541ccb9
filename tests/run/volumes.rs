//! Files and directories of the host.

use std::fs;
use std::os::unix::fs::symlink;

use crate::needs_root;
use crate::stage::{CALLERS, Caller, Stage};

#[test]
fn volumes_are_of_both_sides() {
    needs_root!();
    for caller in CALLERS {
        let stage = Stage::new(caller);
        let data = stage.directory("data");
        fs::write(data.join("in"), "from the host\n").unwrap();
        let volume = format!("{}:/a/b/data", data.display());
        let script = "cat /a/b/data/in; echo 'from inside' > /a/b/data/out";
        assert_eq!(stage.shell(&["--rm", "-v", &volume], script), "from the host\n");
        assert_eq!(fs::read_to_string(data.join("out")).unwrap(), "from inside\n");
        // A relative path, a file, and nothing to be written.
        let read_only = ["--rm", "-v", "./data:/data:ro", "-v", "./data/in:/etc/one"];
        let script = "cat /data/out /etc/one; touch /data/x 2>/dev/null || echo refused";
        assert_eq!(stage.shell(&read_only, script), "from inside\nfrom the host\nrefused\n");
        stage.nothing_is_left();
    }
}

#[test]
fn a_read_only_volume_is_so_to_its_depth() {
    needs_root!();
    let stage = Stage::new(Caller::Mapped);
    let (outer, inner) = (stage.directory("outer"), stage.directory("inner"));
    fs::create_dir(outer.join("below")).unwrap();
    let volumes = [format!("{}:/v/below", inner.display()), format!("{}:/v:ro", outer.display())];
    // Places are filled from the outside in, whatever the order.
    let options = ["--rm", "-v", &volumes[0], "-v", &volumes[1]];
    stage.shell(&options, "touch /v/below/x && ! touch /v/y");
    assert!(inner.join("x").exists());
}

#[test]
fn what_is_not_there_is_not_made() {
    needs_root!();
    let stage = Stage::new(Caller::Single);
    let (status, line) = stage.fails(&["--rm", "-v", "/no/such:/x", "busybox", "true"]);
    assert_eq!(status, 125);
    assert_eq!(line, "plyfs: option --volume: /no/such: No such file or directory (os error 2)");
    let (status, line) = stage.fails(&["--rm", "-v", "name:/x", "busybox", "true"]);
    assert_eq!((status, line.contains("volumes have no names")), (125, true), "{line}");
    assert_eq!(stage.containers(), Vec::<String>::new());
    stage.nothing_is_left();
}

#[test]
fn a_link_of_the_image_does_not_lead_a_volume_out() {
    needs_root!();
    for caller in CALLERS {
        let mut outside = None;
        let stage = Stage::with(caller, |root| {
            let canary = root.parent().unwrap().join("canary");
            fs::create_dir(&canary).unwrap();
            symlink(&canary, root.join("out")).unwrap();
            symlink("../../../../../../../..", root.join("up")).unwrap();
            outside = Some(canary);
        });
        let data = stage.directory("data");
        fs::write(data.join("seen"), "").unwrap();
        let volume = format!("{}:/up/etc/deep", data.display());
        assert_eq!(stage.shell(&["--rm", "-v", &volume], "ls /etc/deep"), "seen\n");
        let volume = format!("{}:/out/deep", data.display());
        let (status, line) = stage.fails(&["--rm", "-v", &volume, "busybox", "true"]);
        assert_eq!(status, 125, "{line}");
        assert_eq!(fs::read_dir(outside.unwrap()).unwrap().count(), 0);
        stage.nothing_is_left();
    }
}
