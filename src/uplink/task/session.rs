//! How this run of the service presents itself: the connection's settings, births, the will and the farewell.

use super::UplinkEnd;
use crate::clock::{Clock, UtcNanos};
use crate::config::UplinkConfig;
use crate::mqtt::{BackoffLimits, Login, Settings, Tls, WallClock, Will};
use crate::wire::topics::{self, Topic};
use crate::wire::{self, State, StoreState};
use std::sync::Arc;

/// What tells this run of the service from others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) run: u64,
}

impl Session {
    /// A birth with a moment, a will or a farewell without.
    pub(super) fn state(&self, stores: Vec<StoreState>, born: Option<(UtcNanos, bool)>) -> State {
        State {
            online: born.is_some(),
            session: self.number,
            run: self.run,
            version: env!("CARGO_PKG_VERSION").into(),
            utc: born.map_or(UtcNanos(0), |(utc, _)| utc),
            clock_trusted: born.is_some_and(|(_, trusted)| trusted),
            stores,
        }
    }
}

/// The connection's settings, with `will` as what the broker says for us when it breaks.
pub(super) fn settings(
    cfg: &UplinkConfig,
    device: &str,
    will: State,
    clock: &Arc<dyn Clock>,
) -> Result<Settings, UplinkEnd> {
    let files = || (cfg.ca.clone(), cfg.cert.clone(), cfg.key.clone());
    let tls = cfg.broker.tls.then(files).map(|(ca, cert, key)| Tls { ca, cert, key, alpn: cfg.alpn.clone() });
    let login = |username: &String| Login { username: username.clone(), password_file: cfg.password_file.clone() };
    let payload = wire::encode(&will).map_err(UplinkEnd::Will)?;
    Ok(Settings {
        tls,
        login: cfg.username.as_ref().map(login),
        filters: topics::device_filters(&cfg.prefix, device).to_vec(),
        will: Some(Will { topic: topics::name(&cfg.prefix, device, Topic::State), payload }),
        max_payload_bytes: (cfg.max_payload_bytes as usize).min(wire::MAX_ENVELOPE),
        backoff: BackoffLimits { spread: cfg.reconnect_spread, ..BackoffLimits::default() },
        clock: WallClock(Arc::clone(clock)),
        ..Settings::device(device, &cfg.broker.host, cfg.broker.port)
    })
}
