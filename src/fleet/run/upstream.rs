//! The broker in use, an outside one or the embedded one, and how the receiver connects to it.
//!
//! What enters: the configuration. What leaves: the settings of the connection, and the end of the embedded broker, should
//! that come.

use crate::config::FleetConfig;
use crate::fleet::FleetError;
#[cfg(feature = "broker")]
use crate::fleet::broker::Broker;
use crate::mqtt::{Login, Settings, Tls};
use crate::wire::topics;
use smol::channel::Receiver as Channel;
use std::net::SocketAddr;
#[cfg(feature = "broker")]
use std::time::Duration;

/// How often the embedded broker is asked whether it still accepts clients, and how many refusals in a row end the service.
#[cfg(feature = "broker")]
const PROBE_EVERY: Duration = Duration::from_secs(30);
#[cfg(feature = "broker")]
const PROBES: u32 = 3;

/// The broker in use.
pub(super) struct Upstream {
    host: String,
    port: u16,
    #[cfg(feature = "broker")]
    embedded: Option<Broker>,
}

impl Upstream {
    pub(super) fn of(config: &FleetConfig) -> Result<Self, FleetError> {
        match (&config.broker, config.listen) {
            (Some(broker), _) => Ok(Self {
                host: broker.host.clone(),
                port: broker.port,
                #[cfg(feature = "broker")]
                embedded: None,
            }),
            (None, Some(listen)) => Self::embedded(listen, &config.prefix),
            (None, None) => Err(FleetError::Config("fleet.broker is missing; name a broker, or `listen`".into())),
        }
    }

    #[cfg(feature = "broker")]
    fn embedded(listen: SocketAddr, prefix: &str) -> Result<Self, FleetError> {
        let broker = Broker::start(listen, prefix)?;
        let local = broker.local_address();
        log::info!("broker: listens on {}", broker.address());
        Ok(Self { host: local.ip().to_string(), port: local.port(), embedded: Some(broker) })
    }

    #[cfg(not(feature = "broker"))]
    fn embedded(_: SocketAddr, _: &str) -> Result<Self, FleetError> {
        Err(FleetError::Config("this build has no embedded broker; name an outside one with fleet.broker".into()))
    }

    #[cfg(feature = "broker")]
    pub(super) fn listening(&self) -> Option<SocketAddr> {
        self.embedded.as_ref().map(Broker::address)
    }

    #[cfg(not(feature = "broker"))]
    pub(super) fn listening(&self) -> Option<SocketAddr> {
        None
    }

    /// Waits until the embedded broker accepts nobody any more; for ever with an outside one.
    #[cfg(feature = "broker")]
    async fn is_gone(&self) -> FleetError {
        let Some(broker) = &self.embedded else { return std::future::pending().await };
        let mut refused = 0;
        while refused < PROBES {
            smol::Timer::after(PROBE_EVERY).await;
            let probe = broker.probe();
            refused = if smol::unblock(probe).await { 0 } else { refused + 1 };
        }
        FleetError::BrokerGone { address: broker.address() }
    }

    #[cfg(not(feature = "broker"))]
    async fn is_gone(&self) -> FleetError {
        std::future::pending().await
    }
}

/// Waits until the service is asked to end, or can't go on.
pub(super) async fn ends(stop: &Channel<()>, upstream: &Upstream) -> Result<(), FleetError> {
    let asked = async {
        // A closed channel asks too: whoever could have is gone.
        let _ = stop.recv().await;
        Ok(())
    };
    smol::future::or(asked, async { Err(upstream.is_gone().await) }).await
}

/// One receiver per prefix: a second one has the same id, and the two notice each other at once. Brokers forbid some
/// characters, a slash among them; two prefixes never have one id.
fn client_id(prefix: &str) -> String {
    format!("varved-fleet-{}", prefix.replace('-', "--").replace('/', "-"))
}

/// How the receiver connects.
pub(super) fn settings(config: &FleetConfig, upstream: &Upstream) -> Settings {
    let mut settings = Settings::receiver(&client_id(&config.prefix), &upstream.host, upstream.port);
    settings.filters = topics::receiver_filters(&config.prefix).to_vec();
    if config.broker.as_ref().is_some_and(|broker| broker.tls) {
        let (ca, cert, key) = (config.ca.clone(), config.cert.clone(), config.key.clone());
        settings.tls = Some(Tls { ca, cert, key, alpn: config.alpn.clone() });
    }
    settings.login =
        config.username.clone().map(|username| Login { username, password_file: config.password_file.clone() });
    settings
}
