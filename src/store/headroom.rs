//! How much room the partition has, and what the file may take of it.
//!
//! What enters: the file system's word (statvfs). What leaves: the bound of the file, which expiry and vacuum then bring it
//! to, step by step. Without a `headroom` in the configuration that bound stays what `max_size` says.

use super::error::StoreError;
use super::{Store, file, ground, quarantine, retention};

impl Store {
    /// Looks at the partition. Cheap: called before each look at [`Store::facts`].
    ///
    /// # Errors
    /// Those of the file system and of SQLite; the bound stays as it was.
    pub fn look_at_medium(&mut self) -> Result<(), StoreError> {
        let free_bytes = ground::free_bytes(&self.path)?;
        let headroom = self.retention.headroom;
        self.retention.pressed = headroom.is_lacking(free_bytes);
        if self.retention.pressed && !quarantine::aside(&self.path)?.is_empty() {
            // That goes before any reading does.
            return Ok(());
        }
        let ours = ground::length(&self.path)? + ground::length(&file::beside(&self.path, "-wal"))?;
        let room_bytes = (ours + free_bytes).saturating_sub(headroom.leave_bytes + self.bounds.log_bytes);
        let most = self.bounds.most_file_bytes;
        let allowed = headroom.allowed(self.bounds.file_bytes, room_bytes, retention::floor_bytes(most), most);
        if allowed != self.bounds.file_bytes {
            log::info!(
                "store: {free_bytes} bytes are free beside {}; the file may take {allowed} bytes",
                self.path.display()
            );
            self.bounds.file_bytes = allowed;
            self.limit_pages()?;
        }
        Ok(())
    }
}
