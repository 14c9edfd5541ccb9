use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::store::Kind;
use crate::store::reference::Reference;

/// A store with an image `app:latest` of one layer without files.
fn store() -> (tempfile::TempDir, Store, Image) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let name: Reference = "app".parse().unwrap();
    store.import_rootfs(&[0; 1024][..], "", Some(&name)).unwrap();
    let image = store.find_image("app").unwrap();
    (dir, store, image)
}

fn create(store: &Store, image: &Image, name: &str) -> Container {
    Container::create(store, Some(name), image, "app:latest").unwrap()
}

#[test]
fn a_container_is_found_by_its_name_and_by_what_no_other_begins_with() {
    let (_dir, store, image) = store();
    let web = create(&store, &image, "web");
    create(&store, &image, "web-2");
    assert_eq!(Container::find(&store, "web").unwrap(), web);
    assert_eq!(Container::find(&store, "web-").unwrap().record().name, "web-2");
    assert_eq!(Container::find(&store, "we").unwrap_err().kind(), Kind::Failure);
    for none in ["x", "", "../web", "web/", "webweb"] {
        assert_eq!(Container::find(&store, none).unwrap_err().kind(), Kind::NotFound, "{none:?}");
    }
    let again = Container::create(&store, Some("web"), &image, "app").unwrap_err();
    assert_eq!(again.to_string(), "container web exists already");
}

#[test]
fn a_container_knows_its_image_and_has_a_layer_like_its_root() {
    let (_dir, store, image) = store();
    let made = Container::create(&store, None, &image, "app:latest").unwrap();
    let record = made.record();
    assert_eq!((record.image.as_str(), record.version), ("app:latest", 1));
    assert_eq!((record.manifest, record.config), (image.digest, image.id()));
    assert_eq!(record.layers, image.layers);
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    assert!(record.name.len() == 12 && record.name.bytes().all(is_hex), "{}", record.name);
    assert_eq!(fs::metadata(made.upper()).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(made.work()).unwrap().uid(), rustix::process::geteuid().as_raw());
    assert_eq!(Container::list(&store).unwrap(), [made]);
}

#[test]
fn removal_takes_everything_and_waits_for_nobody_who_has_it() {
    let (_dir, store, image) = store();
    let web = create(&store, &image, "web");
    fs::write(web.upper().join("file"), "changed").unwrap();
    let hold = Hold::take(&store, "web").unwrap();
    let refused = web.clone().remove(&store).unwrap_err().to_string();
    assert_eq!(refused, "container web is being mounted or removed by another process");
    hold.remove().unwrap();
    drop(hold);
    web.remove(&store).unwrap();
    assert_eq!(Container::list(&store).unwrap(), []);
    for folder in ["containers", "mounts", "tmp"] {
        assert_eq!(fs::read_dir(store.root().join(folder)).unwrap().count(), 0, "{folder}");
    }
}

#[test]
fn a_mount_lives_as_long_as_its_lock() {
    let (_dir, store, image) = store();
    let hold = Hold::take(&store, "web").unwrap();
    // What is being begun is no mount yet.
    assert_eq!(live_mounts(store.root()).unwrap(), []);
    let record = MountRecord {
        mountpoint: "/mnt".into(),
        device: None,
        pid: 1,
        image: "app:latest".into(),
        manifest: image.digest,
        config: image.id(),
        layers: image.layers.clone(),
        container: Some("web".into()),
        created: timestamp::format(0),
    };
    hold.write(&MountRecord { mountpoint: "/a/longer/path".into(), ..record.clone() }).unwrap();
    hold.write(&record).unwrap();
    assert_eq!(live_mounts(store.root()).unwrap(), [("web".to_owned(), record)]);
    drop(hold);
    assert_eq!(live_mounts(store.root()).unwrap(), []);
    assert!(store.root().join("mounts/web.json").exists());
    Hold::take(&store, "web").unwrap().remove().unwrap();
    assert!(!store.root().join("mounts/web.json").exists());
}

#[test]
fn a_damaged_record_is_said_to_be_one() {
    let (_dir, store, image) = store();
    let web = create(&store, &image, "web");
    for text in ["", "{", r#"{"version":1}"#] {
        fs::write(web.path.join(META), text).unwrap();
        assert_eq!(Container::find(&store, "web").unwrap_err().kind(), Kind::Damaged, "{text}");
    }
    let renamed = Record { name: "other".into(), ..web.record.clone() };
    fs::write(web.path.join(META), serde_json::to_vec(&renamed).unwrap()).unwrap();
    assert_eq!(Container::list(&store).unwrap_err().kind(), Kind::Damaged);
}
