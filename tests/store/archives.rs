//! What archives become, entry by entry, and which are refused: edge cases and attacks by name.

use crate::support::{Fields, Tar, TestStore};

/// What the layer holds that the archive becomes, a line for each name.
fn holds(tar: Tar, expected: &str) {
    let expected: String = expected.lines().map(|line| format!("{}\n", line.trim())).collect();
    assert_eq!(TestStore::new().holds(&tar.end()), expected.trim_start_matches('\n'));
}

/// Nothing of the archive is stored, and the error says `why`.
fn refused(tar: Tar, why: &str) {
    refused_bytes(&tar.end(), why);
}

fn refused_bytes(archive: &[u8], why: &str) {
    let store = TestStore::new();
    let before = store.files();
    let error = store.import(archive).unwrap_err().to_string();
    assert_eq!(error, format!("layer 1: {why}"));
    assert_eq!(store.files(), before, "something was stored");
}

mod names {
    use super::*;

    #[test]
    fn all_spellings_are_one() {
        holds(
            Tar::new().dir("./").file("./a", "1").file("/b", "2").file("c/./d", "3").dir("e//"),
            "f a 1
             f b 2
             d c implied
             f c/d 3
             d e",
        );
    }

    #[test]
    fn paths_that_lead_up_are_refused() {
        for name in ["..", "../x", "a/../../x", "/../x", "a/.."] {
            refused(
                Tar::new().file("first", "1").file(name, "x"),
                &format!("entry {name}: its name leads through .."),
            );
        }
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        refused(
            Tar::new().pax(&[("path", b"a\0b")]).file("x", ""),
            "entry a\\u{0}b: its name contains a zero byte",
        );
        let long = "x".repeat(256);
        refused(
            Tar::new().pax(&[("path", long.as_bytes())]).file("x", ""),
            &format!("entry {long}: a name in it is longer than 255 bytes"),
        );
        refused(Tar::new().file("", "x"), "it has no name");
    }

    #[test]
    fn long_paths_and_any_bytes_are_kept() {
        let deep = "d/".repeat(300) + "f";
        let store = TestStore::new();
        let text = store.holds(&Tar::new().pax(&[("path", deep.as_bytes())]).file("x", "1").end());
        assert_eq!(text.lines().count(), 301);
        holds(Tar::new().pax(&[("path", b"a\xff\n\x1b")]).file("x", "1"), "f a\\xff\\n\\u{1b} 1");
    }

    #[test]
    fn gnu_long_names_and_targets_are_read() {
        let long = format!("{}/{}", "a".repeat(130), "b".repeat(130));
        let name = Fields::new(b'L', "././@LongLink");
        let link = Fields::new(b'K', "././@LongLink");
        let tar = Tar::new()
            .entry(name, format!("{long}\0").as_bytes())
            .entry(link, format!("{long}/target\0").as_bytes())
            .symlink("short", "short");
        holds(tar, &format!("d {} implied\nl {long} {long}/target", "a".repeat(130)));
    }
}

mod escapes {
    use super::*;

    const NOT_IN_DIRECTORY: &str = "it lies in something that is not a directory";

    #[test]
    fn nothing_is_written_through_a_link() {
        let inside = format!("entry x/f: {NOT_IN_DIRECTORY}");
        for target in ["/tmp", "../../..", "/"] {
            refused(Tar::new().symlink("x", target).file("x/f", "1"), &inside);
            refused(Tar::new().symlink("x", target).dir("x/f"), &inside);
            refused(
                Tar::new().symlink("x", target).file("x/.wh.victim", ""),
                &format!("entry x/.wh.victim: {NOT_IN_DIRECTORY}"),
            );
        }
        refused(Tar::new().file("x", "1").file("x/f", "1"), &inside);
    }

    #[test]
    fn a_link_of_another_layer_is_not_followed_either() {
        let store = TestStore::new();
        store.holds(&Tar::new().symlink("x", "/etc").end());
        assert_eq!(store.holds(&Tar::new().file("x/f", "1").end()), "d x implied\nf x/f 1\n");
    }

    #[test]
    fn links_to_what_the_layer_does_not_have_are_refused() {
        let why = "it is a hard link to something that is not in the layer before it";
        for target in ["/etc/passwd", "missing", "a/b"] {
            refused(Tar::new().dir("a").link("l", target), &format!("entry l: {why}"));
        }
        refused(Tar::new().link("l", "../x"), "entry ../x: its name leads through ..");
        refused(Tar::new().link("l", "later").file("later", "1"), &format!("entry l: {why}"));
        refused(Tar::new().dir("d").link("l", "d"), "entry l: it is a hard link to a directory");
    }

    /// RUSTSEC-2018-0002: the link was followed, and what it led to written over.
    #[test]
    fn a_hard_link_to_a_symbolic_link_is_replaced_and_not_followed() {
        holds(
            Tar::new().symlink("x", "/etc/victim").link("y", "x").file("y", "new"),
            "l x /etc/victim
             f y new",
        );
    }

    /// CVE-2021-29136.
    #[test]
    fn the_root_stays_a_directory() {
        for tar in [
            Tar::new().symlink("/", "/etc"),
            Tar::new().file(".", "x"),
            Tar::new().dir("a").link("/", "a"),
        ] {
            let store = TestStore::new();
            store.import(&tar.end()).unwrap_err();
        }
        refused(Tar::new().symlink("/", "/etc"), "the root of a layer can only be a directory");
    }

    /// CVE-2026-33056: the mode went to what the link led to.
    #[test]
    fn a_directory_replaces_a_link() {
        holds(Tar::new().symlink("x", "/etc").dir("x").file("x/f", "1"), "d x\nf x/f 1");
    }
}

/// Nothing beside the store is changed: see [`TestStore`].
mod canary {
    use super::*;

    /// Each of these has been used to write, link, empty or change something outside of where a layer was unpacked.
    fn attacks(canary: &str) -> Vec<Tar> {
        let plain = canary.trim_start_matches('/');
        let up = "../../canary";
        let deep = format!("{}{plain}", "../".repeat(20));
        let fields = |flag| Fields { mode: 0o6777, ..Fields::new(flag, "x") };
        let victim = format!("{canary}/victim");
        let mut attacks = Vec::new();
        for target in [canary, up, &deep] {
            let link = || Tar::new().symlink("x", target);
            attacks.extend([
                link().file("x/victim", "dead"),
                link().file("x/new", "1"),
                link().dir("x/new/deep"),
                link().file("x/.wh.victim", ""),
                link().file("x/.wh..wh..opq", ""),
                link().file(".wh.x", ""),
                link().entry(fields(b'5'), b""),
                link().entry(fields(b'0'), b"dead"),
                link().link("y", "x").file("y", "dead").file("y/victim", "dead"),
                link().link("y", "x/victim"),
                Tar::new().link("y", &format!("{target}/victim")).file("y", "dead"),
                Tar::new().file(&format!("{target}/victim"), "dead"),
                Tar::new().dir("a").symlink("a/b", target).file("a/b/victim", "dead"),
                Tar::new().symlink("/", target).file("victim", "dead"),
                Tar::new().file(&format!("{target}/.wh.victim"), ""),
                Tar::new().symlink("x", &victim).file("x", "dead"),
                Tar::new().symlink("x", &victim).link("y", "x").file("y", "dead"),
            ]);
        }
        attacks
    }

    #[test]
    fn attacks_from_one_layer_change_nothing_outside() {
        let store = TestStore::new();
        let mut taken = 0;
        for attack in attacks(&store.canary()) {
            taken += u32::from(store.import(&attack.end()).is_ok());
        }
        // What leads nowhere is taken: links as data, and absolute names below the root of the layer.
        assert!((15..40).contains(&taken), "{taken}");
    }

    /// The link is in one layer, and what goes through it in the next.
    #[test]
    fn attacks_over_layers_change_nothing_outside() {
        let store = TestStore::new();
        let canary = store.canary();
        store.import(&Tar::new().symlink("x", &canary).end()).unwrap();
        for above in [
            Tar::new().file("x/victim", "dead"),
            Tar::new().file("x/.wh.victim", ""),
            Tar::new().file("x/.wh..wh..opq", ""),
            Tar::new().dir("x"),
        ] {
            store.import(&above.end()).unwrap();
        }
    }

    #[test]
    fn rights_are_records_and_not_those_of_files_in_the_store() {
        let store = TestStore::new();
        let tar = [0o4755, 0o2755, 0o6777, 0o1777].iter().fold(Tar::new(), |tar, mode| {
            let file = Fields { mode: *mode, ..Fields::new(b'0', &format!("f{mode}")) };
            let dir = Fields { mode: *mode, ..Fields::new(b'5', &format!("d{mode}")) };
            tar.entry(file, format!("{mode}").as_bytes()).entry(dir, b"")
        });
        let device = Fields { mode: 0o6666, device: (1, 1), ..Fields::new(b'3', "mem") };
        store.import(&tar.entry(device, b"").end()).unwrap();
    }
}

mod whiteouts {
    use super::*;

    #[test]
    fn they_are_about_lower_layers_only_wherever_they_stand() {
        let expected = "f keep NEW";
        holds(Tar::new().file(".wh.keep", "").file("keep", "NEW"), expected);
        holds(Tar::new().file("keep", "NEW").file(".wh.keep", ""), expected);
    }

    #[test]
    fn a_whiteout_and_a_directory_of_one_name_are_an_opaque_directory() {
        let expected = "d a opaque\nf a/new 1";
        holds(Tar::new().file(".wh.a", "").dir("a").file("a/new", "1"), expected);
        holds(Tar::new().dir("a").file("a/new", "1").file(".wh.a", ""), expected);
    }

    #[test]
    fn opaque_directories_keep_what_the_layer_has_in_them() {
        let expected = "d a opaque\nf a/new 1";
        holds(Tar::new().dir("a").file("a/.wh..wh..opq", "").file("a/new", "1"), expected);
        holds(Tar::new().dir("a").file("a/new", "1").file("a/.wh..wh..opq", ""), expected);
    }

    #[test]
    fn a_whiteout_stays_when_what_had_its_name_is_replaced() {
        holds(Tar::new().file(".wh.a", "").dir("a").file("a", "1"), "f a 1");
        holds(Tar::new().file("d/.wh.x", ""), "d d implied\nw d/x");
    }

    #[test]
    fn those_for_names_that_cannot_be_are_refused() {
        for name in [".wh.", ".wh..", ".wh...", "a/.wh.."] {
            refused(
                Tar::new().file(name, ""),
                &format!("entry {name}: it is a whiteout for a name that cannot be"),
            );
        }
    }

    #[test]
    fn what_aufs_kept_for_itself_is_no_part_of_the_layer_but_may_be_linked_to() {
        holds(
            Tar::new()
                .dir(".wh..wh.plnk")
                .file(".wh..wh.plnk/1.2", "1")
                .link("a", ".wh..wh.plnk/1.2")
                .file(".wh..wh.aufs", ""),
            "f a 1",
        );
    }
}

mod doubles {
    use super::*;

    #[test]
    fn the_last_wins() {
        let store = TestStore::new();
        let archive = Tar::new().file("a", "1").file("a", "2").dir("d").dir("d").end();
        assert_eq!(store.import(&archive).unwrap().replaced, 2);
        assert_eq!(store.holds(&archive), "f a 2\nd d\n");
    }

    #[test]
    fn directories_keep_what_is_in_them_and_nothing_else_does() {
        holds(
            Tar::new().dir("a").file("a/x", "1").dir("a").file("a/y", "2"),
            "d a\nf a/x 1\nf a/y 2",
        );
        holds(Tar::new().dir("a").file("a/x", "1").file("a", "2"), "f a 2");
        holds(Tar::new().dir("a").file("a/x", "1").file("a", "2").dir("a"), "d a");
        holds(Tar::new().file("keep", "1").dir("keep").file("keep/y", "2"), "d keep\nf keep/y 2");
    }

    /// Python's tarfile writes those of a file.
    #[test]
    fn links_have_all_permissions_whatever_is_written() {
        let link = Fields { mode: 0o644, link: b"t".into(), ..Fields::new(b'2', "s") };
        holds(Tar::new().entry(link, b""), "l s t");
    }

    #[test]
    fn parents_that_are_missing_are_implied_until_they_come() {
        holds(Tar::new().file("a/b/c", "1").dir("a"), "d a\nd a/b implied\nf a/b/c 1");
    }

    #[test]
    fn hard_links_are_counted_by_the_names_that_are_left() {
        holds(
            Tar::new().file("a", "1").link("b", "a").link("c", "b"),
            "f a 1 nlink=3
             f b 1 nlink=3
             f c 1 nlink=3",
        );
        holds(Tar::new().file("a", "1").link("b", "a").file("a", "2"), "f a 2\nf b 1");
        holds(Tar::new().file("a", "1").link("a", "a"), "f a 1");
        holds(Tar::new().symlink("s", "t").link("s2", "s"), "l s t nlink=2\nl s2 t nlink=2");
        holds(Tar::new().dir("d").file("d/f", "1").link("l", "d/f").file("d", "2"), "f d 2\nf l 1");
    }
}

mod headers {
    use super::*;

    /// CVE-2025-62518: two readers disagreed about where the next header is.
    #[test]
    fn the_size_of_the_extended_header_wins() {
        let smuggled = Tar::new().file("smuggled", "x").0;
        let size = smuggled.len().to_string();
        let fields = Fields { size: 0, ..Fields::new(b'0', "blob") };
        let tar =
            Tar::new().pax(&[("size", size.as_bytes())]).header(&fields.header()).data(&smuggled);
        let text = TestStore::new().holds(&tar.end());
        assert!(text.starts_with("f blob smuggled") && text.lines().count() == 1, "{text}");
    }

    /// CVE-2026-33055, the other way round.
    #[test]
    fn a_smaller_size_of_the_extended_header_wins_too() {
        let fields = Fields { size: 1536, ..Fields::new(b'0', "blob") };
        let tar = Tar::new()
            .pax(&[("size", b"3")])
            .header(&fields.header())
            .data(b"abc")
            .file("second", "2");
        holds(tar, "f blob abc\nf second 2");
    }

    #[test]
    fn a_size_is_for_the_entry_and_not_for_another_header_between() {
        let tar = Tar::new()
            .pax(&[("size", b"600")])
            .entry(Fields::new(b'L', "././@LongLink"), b"long\0")
            .header(&Fields { size: 600, ..Fields::new(b'0', "short") }.header())
            .data(&[b'x'; 600]);
        let text = TestStore::new().holds(&tar.end());
        assert!(text.starts_with("f long xxx"), "{text}");
    }

    #[test]
    fn malformed_and_endless_ones_are_refused() {
        let pax = |data: &[u8]| Tar::new().entry(Fields::new(b'x', "pax"), data).file("f", "");
        refused(pax(b"9999 path=x\n"), "entry pax: its extended header is malformed");
        refused(
            pax(&vec![b'x'; 2 << 20]),
            "entry pax: its extended headers are longer than 1048576 bytes",
        );
        // The size alone, without so many bytes.
        let fields = Fields { size: 8 << 30, ..Fields::new(b'L', "name") };
        refused(
            Tar::new().header(&fields.header()),
            "entry name: its extended headers are longer than 1048576 bytes",
        );
        let small = |n| (0..n).fold(Tar::new(), |tar, _| tar.entry(Fields::new(b'x', "pax"), &[]));
        assert!(TestStore::new().import(&small(10).file("f", "").end()).is_ok());
        refused(Tar::new().pax(&[("path", b"a")]), "the archive ends behind an extended header");
    }

    #[test]
    fn global_ones_say_nothing_about_an_entry() {
        let global = Fields::new(b'g', "pax_global_header");
        holds(
            Tar::new()
                .entry(global, b"52 comment=0123456789012345678901234567890123456789\n")
                .file("f", "1"),
            "f f 1",
        );
    }

    /// podman, skopeo and umoci read them so.
    #[test]
    fn numbers_that_are_not_written_are_zero() {
        for empty in [0, b' '] {
            let mut header = Fields { mode: 0, ..Fields::new(b'0', "f") }.header();
            header.as_mut_bytes()[100..148].fill(empty);
            header.as_mut_bytes()[329..345].fill(empty);
            header.set_cksum();
            let tar = Tar::new().header(&header).file("g", "1");
            assert_eq!(TestStore::new().holds(&tar.end()), "f f \nf g 1\n");
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let last = u64::from(u32::MAX);
        for (uid, gid) in [(last, 0), (0, last), (last + 1, 0)] {
            let fields = Fields { uid, gid, ..Fields::new(b'0', "f") };
            let number = uid.max(gid);
            refused(
                Tar::new().entry(fields, b""),
                &format!("entry f: its owner {number} cannot be"),
            );
        }
        refused(
            Tar::new().pax(&[("uid", b"4294967295")]).file("f", ""),
            "entry f: its owner 4294967295 cannot be",
        );
        refused(
            Tar::new().entry(Fields::new(b'3', "null"), b""),
            "entry null: the device 0:0 is a whiteout to some, and a device to others",
        );
    }

    #[test]
    fn wrong_checksums_and_unknown_types_are_refused() {
        let mut archive = Tar::new().file("f", "1").end();
        archive[0] = b'g';
        refused_bytes(&archive, "entry g: the checksum of a header is wrong");
        refused(
            Tar::new().entry(Fields::new(b'Z', "f"), b""),
            "entry f: entries of type Z are not known",
        );
    }

    #[test]
    fn headers_without_end_are_refused() {
        let mut tar = Tar::new();
        for _ in 0..3000 {
            tar = tar.pax(&[]);
        }
        refused(
            tar.file("f", ""),
            "entry PaxHeaders/x: its extended headers are longer than 1048576 bytes",
        );
    }

    #[test]
    fn only_files_have_a_size() {
        for flag in [b'1', b'2', b'3', b'6'] {
            let fields = Fields {
                link: b"first".into(),
                size: 512,
                device: (1, 3),
                ..Fields::new(flag, "f")
            };
            let tar = Tar::new().file("first", "").header(&fields.header()).data(&[b'x'; 512]);
            refused(tar, "entry f: only a file can have a size");
        }
    }

    #[test]
    fn old_archives_write_directories_as_files_with_a_slash() {
        holds(Tar::new().entry(Fields::new(0, "d/"), b"").file("d/f", "1"), "d d\nf d/f 1");
    }

    #[test]
    fn an_archive_that_is_cut_is_refused() {
        let whole = Tar::new().file("a", &"x".repeat(1000)).file("b", "1").0;
        for cut in [100, 511, 513, 1000, 1600, 2000, 2500] {
            let error = TestStore::new().import(&whole[..cut]).unwrap_err().to_string();
            assert!(error.contains("the archive ends too early"), "{cut}: {error}");
        }
        // Without the end mark, as some programs write.
        assert_eq!(TestStore::new().holds(&whole).lines().count(), 2);
        assert_eq!(TestStore::new().holds(b""), "");
        let half = [&whole[..], &[0; 512], &Tar::new().file("c", "").0].concat();
        refused_bytes(&half, "something follows half an end mark");
    }

    #[test]
    fn what_follows_the_end_is_part_of_the_digest_and_of_nothing_else() {
        let store = TestStore::new();
        let plain = Tar::new().file("a", "1").end();
        let garbage = [&plain[..], b"garbage"].concat();
        assert_eq!(store.holds(&plain), store.holds(&garbage));
        assert_ne!(store.import(&plain).unwrap().diff_id, store.import(&garbage).unwrap().diff_id);
    }
}

mod attributes {
    use super::*;

    #[test]
    fn those_of_unions_are_data() {
        let tar = Tar::new()
            .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y"), ("SCHILY.xattr.user.ok", b"1")])
            .dir("d");
        holds(tar, "d d");
    }

    #[test]
    fn long_ones_are_refused() {
        let tar = |length: usize| {
            Tar::new().pax(&[("SCHILY.xattr.user.long", &vec![b'x'; length])]).file("f", "")
        };
        assert!(TestStore::new().import(&tar(65_536).end()).is_ok());
        refused(
            tar(65_537),
            "entry PaxHeaders/x: an extended attribute is longer than 65536 bytes",
        );
    }
}

mod holes {
    /// Blocks of the map in which nothing is used, without end.
    #[test]
    fn a_map_of_empty_blocks_ends() {
        let header = old_sparse(&[], 0, b"").0;
        let mut archive = header;
        archive[482] = 1;
        let sum: u32 = archive[..512]
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut block = [0; 512];
        block[504] = 1;
        for _ in 0..4000 {
            archive.extend_from_slice(&block);
        }
        refused_bytes(&archive, "entry s: its map of holes is malformed");
    }

    use super::*;

    fn old_sparse(parts: &[(u64, u64)], size: u64, data: &[u8]) -> Tar {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNUSparse);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[0] = b's';
        for (field, (offset, length)) in gnu.sparse.iter_mut().zip(parts) {
            field.set_offset(*offset);
            field.set_length(*length);
        }
        gnu.set_real_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        Tar::new().header(&header).data(data)
    }

    #[test]
    fn files_keep_them() {
        let expected = format!("f s ab{}cd", "\\u{0}".repeat(6));
        holds(old_sparse(&[(0, 2), (8, 2)], 10, b"abcd"), &expected);
        let records: [(&str, &[u8]); 3] =
            [("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"0,2,8,2"), ("GNU.sparse.name", b"s")];
        holds(Tar::new().pax(&records).file("x", "abcd"), &expected);
        let records: [(&str, &[u8]); 4] = [
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", b"10"),
            ("GNU.sparse.name", b"s"),
        ];
        let map = format!("{:\0<512}", "2\n0\n2\n8\n2\n");
        holds(Tar::new().pax(&records).file("x", &format!("{map}abcd")), &expected);
    }

    #[test]
    fn a_file_of_holes_takes_no_room() {
        use std::os::unix::fs::MetadataExt;
        let store = TestStore::new();
        store.import(&old_sparse(&[(256 << 20, 2)], (256 << 20) + 2, b"ab").end()).unwrap();
        let object =
            store.files().into_iter().find(|file| file.starts_with("objects/") && file.len() > 60);
        let object = store.store.root().join(object.unwrap()).metadata().unwrap();
        assert_eq!(object.len(), (256 << 20) + 2);
        assert!(object.blocks() * 512 < 1 << 20, "{} blocks", object.blocks());
    }

    /// CVE-2025-58183.
    #[test]
    fn maps_that_lie_are_refused() {
        let why = "entry s: its map of holes is malformed";
        for parts in [
            &[(0, 3), (2, 2)][..],
            &[(8, 2), (0, 2)],
            &[(0, 2), (9, 2)],
            &[(0, 2)],
            &[(u64::MAX >> 2, 4)],
        ] {
            refused(old_sparse(parts, 10, b"abcd"), why);
        }
        let bomb = |map: &[u8], text: &str| {
            let records: [(&str, &[u8]); 4] = [
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", b"10"),
                ("GNU.sparse.name", b"s"),
            ];
            let mut data = map.to_vec();
            data.resize(data.len().next_multiple_of(512), 0);
            data.extend_from_slice(text.as_bytes());
            refused(Tar::new().pax(&records).entry(Fields::new(b'0', "x"), &data), why);
        };
        bomb(b"9999999999999\n", "");
        bomb(b"18446744073709551615\n", "");
        bomb(&b"1".repeat(4096), "");
        bomb(&b"1".repeat(512), "");
        bomb(&b"0\n".repeat(4), "abcd");
        bomb(&[b"65537\n".to_vec(), b"0\n0\n".repeat(65_537)].concat(), "");
    }
}
