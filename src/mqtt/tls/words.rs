//! What went wrong in a TLS handshake, as a fault that names it: rustls' errors in, [`LinkFault`] out. Pure.

use super::{Trial, x509};
use crate::clock::{Now, SECOND, UtcNanos};
use crate::mqtt::LinkFault;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};
use std::io::ErrorKind;

/// Names of a certificate that are told; more are only counted.
const MAX_NAMES: usize = 4;

/// The fault that `error` is, or none where it is not TLS' own.
pub(in crate::mqtt) fn told(error: &std::io::Error, trial: &Trial, host: &str, now: Now) -> Option<LinkFault> {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(why)) => Some(certificate(why, trial, host, now)),
        Some(Error::AlertReceived(alert)) => Some(alarm(*alert, trial)),
        Some(Error::InvalidMessage(_)) => Some(LinkFault::NotTls),
        Some(other) => Some(LinkFault::Tls { cause: other.to_string() }),
        None => None,
    }
}

/// An error in the handshake that is not TLS' own: the broker went away.
pub(in crate::mqtt) fn left(error: &std::io::Error, trial: &Trial) -> LinkFault {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => match &trial.alpn {
            Some(_) => LinkFault::Tls { cause: "the broker closed the connection in the handshake".into() },
            None => LinkFault::NotTls,
        },
        _ => LinkFault::Unreachable { cause: error.to_string() },
    }
}

fn certificate(why: &CertificateError, trial: &Trial, host: &str, now: Now) -> LinkFault {
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => LinkFault::WrongCa {
            issuer: trial.testimony.issuer().unwrap_or_else(|| "(unreadable)".into()),
            ca: trial.ca.clone(),
            authorities: trial.authorities.clone(),
        },
        CertificateError::NotValidForName => LinkFault::WrongName { host: host.into(), names: "others".into() },
        CertificateError::NotValidForNameContext { presented, .. } => {
            LinkFault::WrongName { host: host.into(), names: names(presented) }
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            LinkFault::Expired { until: utc(*not_after), now: now.utc, trusted: now.trusted }
        }
        CertificateError::NotValidYetContext { not_before, .. } if now.trusted => {
            LinkFault::NotYetValid { from: utc(*not_before), now: now.utc }
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            LinkFault::ClockUnset { from: utc(*not_before), now: now.utc }
        }
        other => LinkFault::Tls { cause: Error::InvalidCertificate(other.clone()).to_string() },
    }
}

/// What the broker says about us (RFC 8446, 6.2).
fn alarm(alert: AlertDescription, trial: &Trial) -> LinkFault {
    match alert {
        AlertDescription::CertificateRequired
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => {
            LinkFault::ClientCertificate { given: trial.has_certificate, cause: format!("{alert:?}") }
        }
        // TLS 1.2 has no word for a certificate that is missing.
        AlertDescription::HandshakeFailure if !trial.has_certificate => {
            LinkFault::ClientCertificate { given: false, cause: format!("{alert:?}") }
        }
        AlertDescription::NoApplicationProtocol => {
            LinkFault::Alpn { asked: trial.alpn.clone().unwrap_or_else(|| "none".into()) }
        }
        other => LinkFault::Tls { cause: format!("the broker says {other:?}") },
    }
}

/// rustls gives each as `DnsName("a.example")`.
fn names(presented: &[String]) -> String {
    let plain = |name: &String| x509::harmless(name.split('"').nth(1).unwrap_or(name));
    let told: Vec<String> = presented.iter().take(MAX_NAMES).map(plain).collect();
    match presented.len().saturating_sub(MAX_NAMES) {
        _ if told.is_empty() => "no name at all".into(),
        0 => told.join(", "),
        more => format!("{} and {more} more", told.join(", ")),
    }
}

fn utc(at: UnixTime) -> UtcNanos {
    UtcNanos(i64::try_from(at.as_secs()).unwrap_or(i64::MAX).saturating_mul(SECOND))
}
