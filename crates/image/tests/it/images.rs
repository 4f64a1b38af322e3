//! Images in the store: importing, assembling, finding, listing, removing.

use image::{AssembleOptions, Contents, FindError, NameError, RemoveMode, Removed, assemble};
use oci::{Config, History};

use crate::world::{ROOTFS, World, amd64, find, import, is_root, packed, reference, show, tar};

#[test]
fn an_import_is_the_same_whatever_packed_it() {
    if !is_root("an_import_is_the_same_whatever_packed_it") {
        return;
    }
    let world = World::new();
    let ids: Vec<_> = ["none", "gzip", "bzip2", "xz", "zstd"]
        .map(|codec| world.run(|layers| import(layers, &packed(ROOTFS, codec), codec).id))
        .into();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let lines: Vec<&str> = ROOTFS.lines().collect();
    let (files, links): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| !line.starts_with("hardlink"));
    let shuffled = files.into_iter().rev().chain(links).collect::<Vec<_>>().join("\n");
    assert_eq!(world.run(|layers| import(layers, &tar(&shuffled), "shuffled").id), ids[0]);
    world.assert_clean();
}

#[test]
fn an_import_keeps_attributes_and_has_dockers_empty_config() {
    if !is_root("an_import_keeps_attributes_and_has_dockers_empty_config") {
        return;
    }
    let world = World::new();
    world.run(|layers| {
        import(layers, &tar(ROOTFS), "base");
        let image = find(layers, "base");
        expect_test::expect![[r#"
            / 555 0:0
            /bin 755 0:0 dir
            /bin/ash 644 0:0 file 7
            /bin/link 777 0:0 -> sh
            /bin/sh 644 0:0 link to /bin/ash
            /bin/su 4755 0:0 file 2
            /dev 755 0:0 dir
            /dev/disk 644 0:0 BlockDevice { major: 7, minor: 1 }
            /dev/null 666 0:0 CharDevice { major: 1, minor: 3 }
            /dev/pipe 644 0:0 Fifo
            /empty 700 0:0 dir
            /etc 755 1:2 dir
            /etc/conf 640 3:4 file 4
            /tmp 1777 0:0 dir
            /tmp/big 644 0:0 file 300000
        "#]]
        .assert_eq(&show(layers, &image.layers));
        let mut config = image.config;
        assert_eq!(config.rootfs.diff_ids.len(), 1);
        config.rootfs.diff_ids.clear();
        expect_test::expect![[r#"{"created":"2024-01-02T03:04:05Z","architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]},"history":[{"created":"2024-01-02T03:04:05Z","comment":"test"}]}"#]]
        .assert_eq(&String::from_utf8(config.to_json()).unwrap());
    });
}

#[track_caller]
fn check_refused_import(tar: &[u8], expected: &str) {
    let world = World::new();
    let before = world.contents();
    let platform = amd64();
    let options = image::import::ImportOptions {
        tags: &[reference("x")],
        platform: &platform,
        created: None,
        message: String::new(),
    };
    let error = world.run(|layers| image::import(layers, tar, &options).unwrap_err());
    assert_eq!(error.to_string(), expected);
    assert_eq!(world.contents(), before);
}

#[test]
fn what_is_no_root_filesystem_is_refused_and_leaves_nothing() {
    check_refused_import(b"hello, this is text and no tar", "this is no root filesystem that can be used");
    check_refused_import(&tar("dir ./"), "the root filesystem is empty");
    check_refused_import(&tar("file a/.wh.b"), "this is no root filesystem that can be used");
    let archive = "file index.json content={}\nfile oci-layout content={}";
    check_refused_import(&tar(archive), "this is an archive of images, not a root filesystem");
    let whole = packed("dir bin\nfile bin/sh size=100000", "gzip");
    check_refused_import(&whole[..whole.len() / 2], "cannot read the root filesystem");
}

#[test]
fn assembling_the_same_again_writes_nothing() {
    let world = World::new();
    let assembled = || {
        world.run(|layers| {
            let layer = import(layers, &tar("file a content=1"), "base").layer.id().clone();
            let mut config = Config::empty(&amd64());
            config.history = vec![History { created_by: "RUN x".to_owned(), ..History::default() }];
            let contents = Contents { layers: vec![layer], config };
            let tags = [reference("app")];
            let created = Some("2024-05-06T07:08:09Z".to_owned());
            assemble(layers, &contents, &AssembleOptions { created, tags: &tags }).unwrap()
        })
    };
    let first = assembled();
    let written = world.contents();
    let second = assembled();
    assert_eq!(world.contents(), written);
    assert_eq!((&second.id, &second.config), (&first.id, &first.config));
    assert_eq!((first.replaced, second.replaced), (vec![None], vec![Some(first.id)]));
    assert_eq!(first.config.rootfs.diff_ids.len(), 1);
}

#[test]
fn a_name_is_a_tag_an_id_or_the_beginning_of_one() {
    let world = World::new();
    world.run(|layers| {
        let app = import(layers, &tar("file a content=1"), "app:1").id;
        let other = import(layers, &tar("file b content=2"), "localhost:5000/other").id;
        let hex = app.digest().hex();
        for name in [
            "app:1",
            "docker.io/library/app:1",
            &hex,
            &hex[..12],
            &app.to_string(),
            &format!("sha256:{}", &hex[..9]),
        ] {
            assert_eq!(find(layers, name).id, app, "{name}");
        }
        assert_eq!(find(layers, "localhost:5000/other:latest").id, other);
        let failed = |name: &str| image::find(layers, name).unwrap_err();
        assert_eq!(failed("nothing").to_string(), "there is no image `nothing`");
        assert!(
            matches!(failed("app:2"), FindError::NotFound { similar: Some(near), .. } if near == "app:1")
        );
        assert!(matches!(failed("No Name"), FindError::Malformed { .. }));
        let local = |name: &str| image::local(layers, &reference(name), &amd64()).unwrap();
        assert_eq!(local("app:1").unwrap().id, app);
        assert!(local("app").is_none());
    });
}

#[test]
fn images_are_listed_with_names_sizes_and_history() {
    let world = World::new();
    world.run(|layers| {
        let base = import(layers, &tar("file a content=12345"), "base");
        image::tag(layers, "base", "alias:x").unwrap();
        let mut config = Config::empty(&amd64());
        let step = |text: &str, empty_layer| History {
            created_by: text.to_owned(),
            empty_layer,
            ..History::default()
        };
        config.history = vec![step("COPY a", false), step("ENV b", true)];
        let contents = Contents { layers: vec![base.layer.id().clone()], config };
        let created = Some("2025-01-01T00:00:00Z".to_owned());
        let app =
            assemble(layers, &contents, &AssembleOptions { created, tags: &[reference("app")] }).unwrap();
        let rows: Vec<String> = image::list(layers)
            .unwrap()
            .iter()
            .map(|row| {
                let names: Vec<_> = row.names.iter().map(|name| name.familiar()).collect();
                format!("{names:?} {} {}", row.size_bytes, row.created.as_deref().unwrap())
            })
            .collect();
        assert_eq!(
            rows,
            [
                r#"["app:latest"] 5 2025-01-01T00:00:00Z"#,
                r#"["alias:x", "base:latest"] 5 2024-01-02T03:04:05Z"#,
            ]
        );
        let image = find(layers, "app");
        let lines: Vec<_> = image::history(layers, &image)
            .unwrap()
            .into_iter()
            .map(|line| (line.created_by, line.layer.is_some(), line.size_bytes))
            .collect();
        assert_eq!(lines, [("ENV b".to_owned(), false, 0), ("COPY a".to_owned(), true, 5)]);
        let json = serde_json::to_value(image::inspect(layers, &image).unwrap()).unwrap();
        assert_eq!(json["Id"], app.id.to_string());
        assert_eq!(json["RepoTags"], serde_json::json!(["app:latest"]));
        assert_eq!(json["RootFS"]["Layers"].as_array().unwrap().len(), 1);
        assert_eq!((&json["Size"], &json["Os"]), (&serde_json::json!(5), &serde_json::json!("linux")));
    });
}

#[test]
fn an_image_goes_with_its_last_name() {
    let world = World::new();
    world.run(|layers| {
        let id = import(layers, &tar("file a content=1"), "one").id;
        image::tag(layers, "one", "two").unwrap();
        let remove = |name: &str, mode| image::remove(layers, name, mode);
        let error = remove(&id.digest().short(), RemoveMode::Careful).unwrap_err();
        assert_eq!(error.to_string(), format!("image {id} has 2 names: one:latest, two:latest"));
        let untagged = |name: &str| Removed::Untagged(reference(name));
        assert_eq!(remove("one", RemoveMode::Careful).unwrap(), [untagged("one")]);
        assert_eq!(
            remove(&id.digest().short(), RemoveMode::Careful).unwrap(),
            [untagged("two"), Removed::Deleted(id.clone())]
        );
        assert!(matches!(
            remove("two", RemoveMode::Careful),
            Err(NameError::Find(FindError::NotFound { .. }))
        ));
        import(layers, &tar("file a content=1"), "one");
        image::tag(layers, "one", "two").unwrap();
        let gone = [untagged("one"), untagged("two"), Removed::Deleted(id.clone())];
        assert_eq!(remove(&id.to_string(), RemoveMode::Force).unwrap(), gone);
    });
    world.assert_clean();
}

#[test]
fn a_tree_is_made_once_however_many_ask() {
    let world = World::new();
    let bytes = tar("file a content=1\ndir d\nfile d/b size=50000");
    let archive = {
        let source = World::new();
        source.run(|layers| {
            import(layers, &bytes, "base");
            crate::archives::save(layers, &["base"], image::export::Format::Oci, oci::Compression::Gzip)
        })
    };
    world.run(|layers| {
        let loaded = crate::archives::load(layers, &archive);
        let id = loaded[0].image.layers[0].clone();
        assert!(layers.layer(&id).unwrap().fs_path().is_none());
        let paths: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| layers.tree(&id).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(paths.iter().all(|path| *path == paths[0]));
        // Another command of the same machine.
        assert_eq!(world.run(|others| others.tree(&id).unwrap()), paths[0]);
        let merged = layers.merged(std::slice::from_ref(&id)).unwrap();
        let found = merged.lookup(&sys::RootfsPath::parse("d/b").unwrap()).unwrap();
        let file = layers.open_file(std::slice::from_ref(&id), &merged, found).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 50000);
    });
    world.assert_clean();
}
