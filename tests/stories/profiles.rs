//! What `board/` holds is right: each profile is a configuration, what its comments offer too, the recipe builds SQLite as the
//! project does, and the install script may be run twice and takes no reading away.

use crate::support::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The profiles: `board/*/varved.toml`, with the name of the board.
fn profiles() -> Vec<(String, PathBuf)> {
    let folders = fs::read_dir(project("board")).unwrap().map(|entry| entry.unwrap().path());
    let named = folders.map(|dir| (dir.file_name().unwrap().to_str().unwrap().to_owned(), dir.join("varved.toml")));
    let mut found: Vec<_> = named.filter(|(_, profile)| profile.exists()).collect();
    found.sort();
    assert!(found.len() >= 4, "the profiles were found: {found:?}");
    found
}

fn check(config: &Path) -> Output {
    Command::new(VARVED).args(["check", "--config"]).arg(config).output().unwrap()
}

/// A board's profile may be copied as it is: `varved check` has nothing against it, and a readme lies beside it.
#[test]
fn every_boards_profile_is_a_right_configuration() {
    for (board, profile) in profiles() {
        let out = check(&profile);
        assert!(out.status.success(), "{board}: {}", text(&out));
        assert!(String::from_utf8_lossy(&out.stdout).starts_with("ok: "), "{board}: {}", text(&out));
        assert!(profile.with_file_name("README.md").exists(), "{board} has a readme");
    }
}

/// Who takes the comments of the uplink away has a right configuration too. Its files are not on this machine, which is only
/// noted.
#[test]
fn the_uplink_that_a_profile_offers_is_right() {
    let dir = tempfile::tempdir().unwrap();
    for (board, profile) in profiles() {
        let written = fs::read_to_string(&profile).unwrap();
        let (head, uplink) = written.split_once("#[uplink]").unwrap_or_else(|| panic!("{board} offers an uplink"));
        let offered = format!("{head}[uplink]{}", uplink.replace("\n#", "\n"));
        let config = dir.path().join(format!("{board}.toml"));
        fs::write(&config, offered).unwrap();
        let out = check(&config);
        assert!(out.status.success(), "{board}: {}", text(&out));
        assert!(String::from_utf8_lossy(&out.stdout).contains("uplink to mqtt"), "{board}: {}", text(&out));
    }
}

/// Buildroot's vendored sources lose `.cargo/config.toml`, so the recipe has SQLite's flags once more: the same ones.
#[test]
fn buildroot_builds_sqlite_as_the_project_does() {
    let words = |text: &str| -> Vec<String> {
        let flags = text.split(|c: char| c.is_whitespace() || c == '"');
        flags.filter(|word| word.starts_with("-D") || word.starts_with("-U")).map(str::to_owned).collect()
    };
    let ours = fs::read_to_string(project(".cargo/config.toml")).unwrap();
    let ours = words(ours.lines().find(|line| line.starts_with("LIBSQLITE3_FLAGS")).unwrap());
    let recipe = fs::read_to_string(project("board/buildroot/package/varved/varved.mk")).unwrap();
    let begin = recipe.find("VARVED_SQLITE_FLAGS =").unwrap();
    let end = begin + recipe[begin..].find("\n\n").unwrap();
    assert!(ours.len() >= 3, "{ours:?}");
    assert_eq!(words(&recipe[begin..end]), ours);
}

/// The root file system of an image, with what tells systemd's presence and the users.
fn image(dir: &Path) {
    for folder in ["etc", "usr/lib/systemd", "usr/lib/udev"] {
        fs::create_dir_all(dir.join(folder)).unwrap();
    }
    fs::write(dir.join("usr/lib/systemd/systemd"), "").unwrap();
    fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nother:x:999:999::/:/bin/false\n").unwrap();
    fs::write(dir.join("etc/group"), "root:x:0:\nother:x:999:\n").unwrap();
}

fn install(root: &Path, more: &[&str]) -> String {
    let mut command = Command::new("sh");
    command.arg(project("board/install.sh")).arg("--root").arg(root).args(more);
    let out = command.output().unwrap();
    assert!(out.status.success(), "install.sh {more:?}: {}", text(&out));
    String::from_utf8(out.stdout).unwrap()
}

/// Installed twice is installed once; a configuration that somebody changed is kept; what is taken away again is the program,
/// and never a reading.
#[test]
fn the_install_script_keeps_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    image(root);
    let usual = ["--board", "qemu-virt", "--binary", VARVED];
    install(root, &usual);
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let config = "etc/varved/varved.toml";
    assert_eq!(read(config), fs::read_to_string(project("board/qemu-virt/varved.toml")).unwrap());
    let account = read("etc/passwd").lines().filter(|line| line.starts_with("varved:x:998:998:")).count();
    assert_eq!(account, 1, "{}", read("etc/passwd"));
    assert!(read("usr/lib/systemd/system/varved.service").contains("ExecStart=/usr/bin/varved run"));

    let users = (read("etc/passwd"), read("etc/group"));
    install(root, &usual);
    assert_eq!((read("etc/passwd"), read("etc/group")), users);
    assert!(!root.join("etc/varved/varved.toml.new").exists(), "nothing has changed");

    fs::write(root.join(config), "device = \"mine\"\n").unwrap();
    let said = install(root, &usual);
    assert!(said.contains("is kept"), "{said}");
    assert_eq!(read(config), "device = \"mine\"\n");
    assert!(read("etc/varved/varved.toml.new").contains("[store]"));

    fs::write(root.join("var/lib/varved/varved.db"), "readings").unwrap();
    let said = install(root, &["--uninstall"]);
    assert!(said.contains("Left alone: the readings"), "{said}");
    assert_eq!(read("var/lib/varved/varved.db"), "readings");
    assert_eq!(read(config), "device = \"mine\"\n");
    for gone in ["usr/bin/varved", "usr/lib/systemd/system/varved.service", "usr/lib/udev/rules.d/60-varved.rules"] {
        assert!(!root.join(gone).exists(), "{gone}");
    }
}
