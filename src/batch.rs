//! (being built)

use crate::reading::{SeriesDef, SeriesKey};
use std::sync::{Arc, Mutex};

/// stub
#[derive(Debug)]
pub struct Registry(Mutex<Vec<Arc<SeriesDef>>>, Mutex<std::collections::HashMap<SeriesDef, u32>>, u32);
/// stub
#[derive(Debug)]
pub struct TooManySeries;
impl Registry {
    /// stub
    pub fn new(max_series: u32) -> Self {
        Self(Mutex::default(), Mutex::default(), max_series)
    }
    /// stub
    pub fn key(&self, def: &SeriesDef) -> Result<SeriesKey, TooManySeries> {
        let (mut defs, mut keys) = (self.0.lock().unwrap(), self.1.lock().unwrap());
        if let Some(k) = keys.get(def) {
            return Ok(SeriesKey(*k));
        }
        if defs.len() as u32 >= self.2 {
            return Err(TooManySeries);
        }
        defs.push(Arc::new(def.clone()));
        keys.insert(def.clone(), defs.len() as u32 - 1);
        Ok(SeriesKey(defs.len() as u32 - 1))
    }
    /// stub
    pub fn def(&self, key: SeriesKey) -> Arc<SeriesDef> {
        self.0.lock().unwrap()[key.0 as usize].clone()
    }
}
