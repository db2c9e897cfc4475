//! How this run of the service connects: the settings, with the will.

use super::UplinkEnd;
use crate::config::UplinkConfig;
use crate::mqtt::{Login, Settings, Tls, Will};
use crate::wire::topics::{self, Topic};
use crate::wire::{self, State};

/// The connection's settings, with `will` as what the broker says for us when it breaks.
pub(super) fn settings(cfg: &UplinkConfig, device: &str, will: State) -> Result<Settings, UplinkEnd> {
    let tls = cfg.broker.tls.then(|| Tls { ca: cfg.ca.clone(), cert: cfg.cert.clone(), key: cfg.key.clone() });
    let login = |username: &String| Login { username: username.clone(), password_file: cfg.password_file.clone() };
    let payload = wire::encode(&will).map_err(UplinkEnd::Will)?;
    Ok(Settings {
        tls,
        login: cfg.username.as_ref().map(login),
        filters: topics::device_filters(&cfg.prefix, device).to_vec(),
        will: Some(Will { topic: topics::name(&cfg.prefix, device, Topic::State), payload }),
        max_payload_bytes: (cfg.max_payload_bytes as usize).min(wire::MAX_ENVELOPE),
        ..Settings::device(device, &cfg.broker.host, cfg.broker.port)
    })
}
