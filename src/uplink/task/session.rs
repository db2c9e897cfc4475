//! How this run of the service connects: the settings, with the will.

use super::UplinkEnd;
use crate::clock::Clock;
use crate::config::UplinkConfig;
use crate::mqtt::{BackoffLimits, Login, Settings, Tls, WallClock, Will};
use crate::wire::topics::{self, Topic};
use crate::wire::{self, State};
use std::sync::Arc;

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
        inflight: cfg.pace.max_in_flight,
        keep_alive: cfg.pace.keep_alive,
        paced: true,
        max_payload_bytes: (cfg.max_payload_bytes as usize).min(wire::MAX_ENVELOPE),
        backoff: BackoffLimits { spread: cfg.reconnect_spread, ..BackoffLimits::default() },
        clock: WallClock(Arc::clone(clock)),
        ..Settings::device(device, &cfg.broker.host, cfg.broker.port)
    })
}
