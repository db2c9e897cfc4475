//! Everything that goes wrong says what to do, and leaves nothing under the final name, or the file as it was.

use super::*;

/// A store of a device that has ended.
fn dead(dir: &Path, name: &str) -> Site {
    let site = Site::new(&dir.join(name), name, "", "");
    let device = site.run();
    fill(&site, 0, 1_000);
    assert_eq!(device.stop(), Some(0));
    site
}

/// An executable that stands for what a board may have in place of our `varved`.
fn script(dir: &Path, text: &str) -> PathBuf {
    let folder = folder(dir, "bin");
    let path = folder.join("varved");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    assert!(Command::new("chmod").arg("755").arg(&path).status().unwrap().success());
    folder
}

/// A host that does not answer, one that is another one, a key that is not taken: three remedies.
#[test]
fn a_wrong_host_or_key_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(&dir.path().join("ssh"), "");
    let laptop = folder(dir.path(), "laptop");
    sshd.configure("nobody", free_port());
    sshd.configure_with("stranger", sshd.port, "other", "known_hosts");
    let host = std::fs::read_to_string(sshd.dir.join("other.pub")).unwrap();
    let known = format!("[127.0.0.1]:{} {host}", sshd.port);
    std::fs::write(sshd.dir.join("false_hosts"), known).unwrap();
    sshd.configure_with("changed", sshd.port, "key", "false_hosts");
    for (host, part) in [
        ("nobody", "nobody can't be reached"),
        ("no-such-host.invalid", "can't be reached"),
        ("stranger", "takes none of your keys"),
        ("changed", "is not the one that is known"),
    ] {
        let out = Command::new(VARVED).args(["pull", "--ssh", &sshd.client(), host]).arg(laptop.join("x.db")).output();
        let (code, why) = told(&out.unwrap());
        assert!(code == 69 && why.contains(part) && why.contains(';'), "{host}: {why}");
        assert!(!laptop.join("x.db").exists());
    }
    let out =
        Command::new(VARVED).args(["pull", "--ssh", "no-such-program", "board"]).arg(laptop.join("x.db")).output();
    let (code, why) = told(&out.unwrap());
    assert!(code == 69 && why.contains("install an ssh client"), "{why}");
    let out = Command::new(VARVED).args(["pull", "--", "-oProxyCommand=x", "y.db"]).output().unwrap();
    assert_eq!(told(&out).0, 64);
}

/// No varved there, one that knows no pull, one that speaks another version: what to update is said.
#[test]
fn another_varved_on_the_far_side_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let laptop = folder(dir.path(), "laptop");
    for (n, (bin, code, part)) in [
        ("exit 127", 69, "there is no `varved` on board"),
        (
            "echo \"varved: \\`serve-pull\\` is not a command; see \\`varved --help\\`\" >&2; exit 64",
            69,
            "is older than `serve-pull`",
        ),
        ("echo 'varved-pull 7 9 12.0.0'; cat", 69, "is newer: it speaks versions 7 to 9"),
        ("echo 'varved-pull 0 0 0.0.1'; cat", 69, "is older: it speaks versions 0 to 0"),
        ("cat /dev/zero", 69, "is not of `varved serve-pull`"),
        ("echo 'varved-pull 1 1 0.1.0'; cat /dev/urandom", 65, "sends what can't be read"),
        ("echo 'varved-pull 1 1 0.1.0'", 75, "the line was cut"),
        (
            "echo 'varved: /x.db: no such file; name the store' >&2; exit 69",
            69,
            "the far side says: /x.db: no such file",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = dir.path().join(n.to_string());
        let sshd = Sshd::with(ssh::Server::OpenSsh, &dir, "", &script(&dir, bin));
        let out = pull(&sshd, Path::new("/x.db"), &laptop.join("x.db"), &[]);
        let (exit, why) = told(&out);
        assert!(exit == code && why.contains(part), "{bin}\n told {exit}: {}", text(&out));
        assert!(!laptop.join("x.db").exists());
    }
}

/// A file of another device, or of another program, is left as it is.
#[test]
fn another_file_is_never_added_to() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dead(dir.path(), "pump-17"), dead(dir.path(), "pump-18"));
    let sshd = |site: &Site, name: &str| {
        let forced = format!("command=\"varved serve-pull --config {}\"", site.config.display());
        Sshd::start(&dir.path().join(name), &forced)
    };
    let (ssh_one, ssh_two) = (sshd(&one, "ssh1"), sshd(&two, "ssh2"));
    let laptop = folder(dir.path(), "laptop");
    let out = laptop.join("x.db");
    said(&pull(&ssh_one, &one.db(), &out, &[]));
    let before = std::fs::read(&out).unwrap();
    let (code, why) = told(&pull(&ssh_two, &two.db(), &out, &[]));
    assert!(
        code == 64 && why.contains("holds the readings of pump-17, and this is pump-18; name another file"),
        "{why}"
    );
    assert_eq!(std::fs::read(&out).unwrap(), before);
    let (code, why) = told(&pull(&ssh_one, &one.db(), &out, &["--raw"]));
    assert!(code == 64 && why.contains("not a file that `varved pull` wrote in this form"), "{why}");
    let text_file = laptop.join("notes.txt");
    std::fs::write(&text_file, "notes").unwrap();
    assert_eq!(told(&pull(&ssh_one, &one.db(), &text_file, &[])).0, 64);
    assert_eq!(std::fs::read(&text_file).unwrap(), b"notes");
    said(&pull(&ssh_one, &one.db(), &out, &[]));
    // The live store of a service here is no file to pull into, either.
    let (code, _) = told(&pull(&ssh_one, &one.db(), &two.db(), &[]));
    assert_eq!(code, 64);
}

/// A full disk on the laptop: nothing has the final name, what is there stays as it was, and with room the pull goes on.
#[test]
fn a_full_disk_on_the_laptop_leaves_the_file_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(&dir.path().join("site"), "pump-17", "", "");
    let device = site.run();
    fill(&site, 0, 1_000);
    let sshd = Sshd::start(&dir.path().join("ssh"), "");
    let disk = Tmpfs::new(&dir.path().join("disk"), "2m");
    let out = disk.path.join("x.db");
    said(&pull(&sshd, &site.db(), &out, &[]));
    let before = readings(&out);
    fill(&site, 1_000, 20_000);
    let failed = pull(&sshd, &site.db(), &out, &[]);
    let (code, why) = told(&failed);
    assert!(code == 74 && why.contains("no room for") && why.contains("free space"), "{}", text(&failed));
    assert_eq!(readings(&out), before);
    disk.fill("ballast");
    let (code, why) = told(&pull(&sshd, &site.db(), &disk.path.join("y.db"), &[]));
    assert!(code == 74 && why.contains("no room for"), "{why}");
    assert!(!disk.path.join("y.db").exists());
    std::fs::remove_file(disk.path.join("ballast")).unwrap();
    disk.remount("size=64m");
    assert!(said(&pull(&sshd, &site.db(), &out, &[])).contains("21000 of 50 series"));
    assert_eq!(device.stop(), Some(0));
    assert_eq!(readings(&out), readings(&site.db()));
}
