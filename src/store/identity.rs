//! Which machine this is, as far as it can be told without asking anyone.
//!
//! What enters: the directory that stands for `/`. What leaves: a hash of the machine's identity and the kernel's boot id.
//! A golden image written to a thousand cards has the same `/etc/machine-id` a thousand times, so the board's own serial
//! numbers count too, and where it has none, the addresses burnt into its network chips. A card that is moved to another
//! board, and a cloned image, then differ from what the file remembers and take a fresh store id. The hash is no secret and
//! no proof of anything.

use super::error::StoreError;
use std::path::Path;
use uuid::Uuid;

/// Serial numbers of the board; the first group that can be read counts. Sources: Linux
/// `Documentation/ABI/testing/sysfs-devices-soc` (serial_number), the devicetree specification §2.3 (serial-number),
/// `Documentation/ABI/testing/sysfs-firmware-dmi-tables` and drivers/firmware/dmi-id.c (product_uuid, root only).
const SERIALS: [&str; 4] = [
    "sys/firmware/devicetree/base/serial-number",
    "sys/devices/soc0/serial_number",
    "sys/class/dmi/id/product_uuid",
    "sys/class/dmi/id/product_serial",
];

/// Who opens the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Hash of what identifies the machine.
    pub machine_hash: [u8; 16],
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_uuid: Uuid,
}

impl Identity {
    /// Reads it below `root`, which is `/` in service.
    ///
    /// # Errors
    /// [`StoreError::Io`] where there is no boot id: without one, boots could not be told apart.
    pub fn read(root: &Path) -> Result<Self, StoreError> {
        let path = root.join("proc/sys/kernel/random/boot_id");
        let text = std::fs::read_to_string(&path).map_err(|e| StoreError::io("read", &path, e))?;
        let boot_uuid = Uuid::parse_str(text.trim()).map_err(|e| {
            StoreError::io("read", &path, std::io::Error::new(std::io::ErrorKind::InvalidData, e.to_string()))
        })?;
        Ok(Self { machine_hash: machine_hash(root), boot_uuid })
    }
}

fn machine_hash(root: &Path) -> [u8; 16] {
    let mut hash = Fnv::default();
    hash.add(&word(&root.join("etc/machine-id")));
    match SERIALS.iter().map(|name| word(&root.join(name))).find(|serial| !serial.is_empty()) {
        Some(serial) => hash.add(&serial),
        None => addresses(root).iter().for_each(|address| hash.add(address)),
    }
    hash.0.to_be_bytes()
}

/// The content of a small file without its white space and NULs; empty where it can't be read or says nothing.
fn word(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap_or_default();
    bytes.retain(|b| !b.is_ascii_whitespace() && *b != 0);
    bytes.truncate(256);
    if bytes.iter().all(|b| *b == b'0') { Vec::new() } else { bytes }
}

/// Addresses that belong to chips (addr_assign_type 0, `Documentation/ABI/testing/sysfs-class-net`) on a bus that isn't
/// USB: a modem or dongle comes and goes.
fn addresses(root: &Path) -> Vec<Vec<u8>> {
    let net = root.join("sys/class/net");
    let Ok(entries) = std::fs::read_dir(&net) else { return Vec::new() };
    let mut found: Vec<Vec<u8>> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|dir| word(&dir.join("addr_assign_type")).is_empty() && dir.join("addr_assign_type").exists())
        .filter(|dir| dir.join("device").canonicalize().is_ok_and(|d| !d.to_string_lossy().contains("/usb")))
        .map(|dir| word(&dir.join("address")))
        .filter(|address| !address.is_empty())
        .collect();
    found.sort();
    found
}

/// FNV-1a, 128 bits (draft-eastlake-fnv): stable for ever, which the standard library's hasher does not promise.
struct Fnv(u128);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Fnv {
    /// A length goes in first, so that two parts never run into one.
    fn add(&mut self, part: &[u8]) {
        for byte in (part.len() as u32).to_le_bytes().iter().chain(part) {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013B);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(machine_id: &str, serial: Option<&str>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("proc/sys/kernel/random/boot_id", "11111111-2222-4333-8444-555555555555\n");
        put("etc/machine-id", machine_id);
        if let Some(serial) = serial {
            put("sys/firmware/devicetree/base/serial-number", serial);
        }
        dir
    }

    /// Two boards from one golden image differ by their serial number; the same board stays itself.
    #[test]
    fn a_cloned_image_on_another_board_is_another_machine() {
        let hash = |dir: &tempfile::TempDir| Identity::read(dir.path()).unwrap().machine_hash;
        let one = root("abc\n", Some("100000001234\0"));
        let same = root("abc\n", Some("100000001234\0"));
        let clone = root("abc\n", Some("100000009999\0"));
        let moved = root("def\n", Some("100000001234\0"));
        assert_eq!(hash(&one), hash(&same));
        assert_ne!(hash(&one), hash(&clone));
        assert_ne!(hash(&one), hash(&moved));
    }

    /// Without serial number the hash is that of the machine id alone, and without a boot id there is no identity.
    #[test]
    fn what_is_missing_is_left_out_but_for_the_boot_id() {
        let bare = root("abc\n", None);
        assert!(Identity::read(bare.path()).is_ok());
        assert!(matches!(Identity::read(Path::new("/nowhere")), Err(StoreError::Io { .. })));
    }
}
