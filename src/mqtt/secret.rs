//! Keys and passwords: files that only their owner and its group may use.
//!
//! What enters: a path. What leaves: what the file holds, or a fault that tells of the file and never of what is in it.
//! Group bits are left alone: systemd's `LoadCredential` gives 0400 or 0440, and a service may read by its group.

use super::LinkFault;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// No key and no password is longer; a path that leads to a device is not read for ever.
const MAX_BYTES: u64 = 64 * 1024;

/// The permissions of those who are neither owner nor in the group (chmod(2)).
const OTHERS: u32 = 0o007;

/// Reads a secret of at most 64 KiB.
///
/// # Errors
/// The file can't be read, is longer, or others may use it.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, LinkFault> {
    let fault = |cause: String| LinkFault::File { path: path.to_path_buf(), cause };
    let io = |e: std::io::Error| fault(e.to_string());
    let file = File::open(path).map_err(io)?;
    // Of the file that is open, not of whatever has the name a moment later.
    let mode = file.metadata().map_err(io)?.mode() & 0o777;
    if mode & OTHERS != 0 {
        let cause =
            format!("everybody may use it (mode {mode:03o}): it is a secret, run `chmod o= {}`", path.display());
        return Err(fault(cause));
    }
    let mut secret = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut secret).map_err(io)?;
    if secret.len() as u64 > MAX_BYTES {
        return Err(fault(format!("it is longer than {MAX_BYTES} bytes, so it is neither a key nor a password")));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Whatever others may do with a secret is refused with the command that ends it; group bits are not.
    #[test]
    fn a_secret_that_others_may_use_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("secret");
        std::fs::write(&path, "hunter2\n").expect("written");
        for mode in [0o400, 0o440, 0o600, 0o640, 0o660] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
            assert_eq!(read(&path).expect("a secret"), b"hunter2\n", "{mode:o}");
        }
        for mode in [0o644, 0o604, 0o602, 0o601] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
            let told = read(&path).expect_err("others may use it").to_string();
            assert!(told.contains(&format!("mode {mode:o}")) && told.contains("chmod o= "), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    /// A name of something endless is refused instead of filling the memory.
    #[test]
    fn an_endless_secret_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("long");
        std::fs::write(&path, vec![b'x'; MAX_BYTES as usize + 1]).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("chmod");
        assert!(read(&path).is_err_and(|fault| fault.to_string().contains("longer than 65536")));
    }
}
