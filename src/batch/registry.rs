//! The series that this process has met, by key.
//!
//! What enters: definitions. What leaves: keys that are good for this process's life. Bounded by `max_series`: a producer
//! that makes up names cannot fill the memory. Shared by every thread that takes readings.

use crate::fault::{Exit, Fault, Verdict};
use crate::reading::{SeriesDef, SeriesKey};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Definitions and their keys.
#[derive(Debug)]
pub struct Registry {
    max_series: u32,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_def: HashMap<Arc<SeriesDef>, SeriesKey>,
    by_key: Vec<Arc<SeriesDef>>,
}

impl Registry {
    /// Room for this many series.
    pub fn new(max_series: u32) -> Self {
        Self { max_series, known: Mutex::default() }
    }

    /// The key of `def`; a new one where it is new.
    ///
    /// # Errors
    /// [`TooManySeries`] where it is new and there is no room.
    pub fn key(&self, def: &SeriesDef) -> Result<SeriesKey, TooManySeries> {
        let mut known = self.known();
        if let Some(key) = known.by_def.get(def) {
            return Ok(*key);
        }
        let next = known.by_key.len() as u32;
        if next >= self.max_series {
            return Err(TooManySeries { max_series: self.max_series });
        }
        let def = Arc::new(def.clone());
        known.by_key.push(Arc::clone(&def));
        known.by_def.insert(def, SeriesKey(next));
        Ok(SeriesKey(next))
    }

    /// The definition behind `key`.
    ///
    /// # Panics
    /// For a key that this registry did not give: that is our bug, never a producer's.
    pub fn def(&self, key: SeriesKey) -> Arc<SeriesDef> {
        Arc::clone(&self.known().by_key[key.0 as usize])
    }

    /// How many series it knows.
    pub fn len(&self) -> usize {
        self.known().by_key.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A thread that panicked while it held the lock left whole entries: each is pushed before it can be found.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A series that is new, where there is no room for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManySeries {
    /// How many there are.
    pub max_series: u32,
}

impl fmt::Display for TooManySeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there are {} series already: raise [store] max_series, or look for made-up names", self.max_series)
    }
}

impl std::error::Error for TooManySeries {}

impl Fault for TooManySeries {
    fn verdict(&self) -> Verdict {
        Verdict::Reject
    }

    fn exit(&self) -> Exit {
        Exit::Config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Kind, Scale};

    /// One definition has one key; a change of unit makes another; what is beyond the bound is refused, the rest goes on.
    #[test]
    fn a_series_is_its_whole_definition() {
        let registry = Registry::new(2);
        let cel = SeriesDef { name: "a/b".into(), unit: "Cel".into(), kind: Kind::Int, scale: Scale::MILLI };
        let volt = SeriesDef { unit: "V".into(), ..cel.clone() };
        let key = registry.key(&cel).expect("a key");
        assert_eq!(registry.key(&cel), Ok(key));
        assert_ne!(registry.key(&volt), Ok(key));
        assert_eq!(*registry.def(key), cel);
        let third = SeriesDef { unit: "A".into(), ..cel.clone() };
        assert_eq!(registry.key(&third), Err(TooManySeries { max_series: 2 }));
        assert_eq!((registry.key(&cel), registry.len()), (Ok(key), 2));
    }
}
