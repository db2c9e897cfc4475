//! A key that may pull and nothing else, with both servers that boards have.

use super::*;
use crate::support::ssh::Server;

/// What somebody with the technician's key tries: he gets the store that the key is for, and else a refusal, whatever he types.
fn serves_one_store_only(server: Server) {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(&dir.path().join("site"), "pump-17", "", "");
    let other = Site::new(&dir.path().join("other"), "pump-18", "", "");
    for site in [&site, &other] {
        let device = site.run();
        fill(site, 0, 1_000);
        assert_eq!(device.stop(), Some(0));
    }
    let restrict = if server == Server::OpenSsh {
        "restrict"
    } else {
        "no-pty,no-port-forwarding,no-agent-forwarding,no-X11-forwarding"
    };
    let forced = format!("{restrict},command=\"{VARVED} serve-pull --config {}\"", site.config.display());
    let sshd = Sshd::with(server, &dir.path().join("ssh"), &forced, Path::new("/usr/bin"));
    let out = dir.path().join("out.db");
    let by_key = Command::new(VARVED).args(["pull", "--ssh", &sshd.client(), "board"]).arg(&out).output().unwrap();
    assert!(said(&by_key).contains("1000 of 50 series"), "{}\n{}", text(&by_key), sshd.log());
    said(&pull(&sshd, &site.db(), &out, &[]));

    let (code, why) = told(&pull(&sshd, &other.db(), &dir.path().join("no.db"), &[]));
    assert!(code == 64 && why.contains("this key may only pull") && why.contains("site/varved.db"), "{why}");
    let marker = dir.path().join("marker");
    for asked in [
        format!("touch {}", marker.display()),
        format!("varved serve-pull; touch {}", marker.display()),
        format!("varved serve-pull --db $(touch {})", marker.display()),
        format!("varved serve-pull --config {}", other.config.display()),
        "cat /etc/passwd".to_owned(),
        "varved run".to_owned(),
        "sh".to_owned(),
    ] {
        let out = Command::new("ssh").arg("-F").arg(sshd.dir.join("config")).args(["board", &asked]).output().unwrap();
        assert_eq!(out.status.code(), Some(64), "{asked}: {}", text(&out));
        assert!(out.stdout.is_empty() && text(&out).contains("this key may only pull"), "{asked}: {}", text(&out));
    }
    assert!(!marker.exists());
    assert!(!dir.path().join("no.db").exists());
    // Nor is a conversation that is no pull answered with more than a greeting.
    let ssh = format!("head -c 1000000 /dev/urandom | ssh -F {} board | wc -c", sshd.dir.join("config").display());
    let out = Command::new("sh").args(["-c", &ssh]).output().unwrap();
    assert!(said(&out).trim().parse::<u64>().unwrap() < 100, "{}", text(&out));
}

#[test]
fn a_key_pulls_one_store_and_nothing_else() {
    serves_one_store_only(Server::OpenSsh);
}

/// The same with the server of small boards.
#[test]
fn a_key_pulls_one_store_and_nothing_else_with_dropbear() {
    serves_one_store_only(Server::Dropbear);
}
