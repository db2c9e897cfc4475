//! TLS for MQTT: a rustls client configuration of our own, with ring.
//!
//! What enters: paths of PEM files, the protocol to ask for, the clock. What leaves: a configuration, and what it takes to
//! say why a broker was refused. Built here rather than by rumqttc, whose own way goes through an old rustls-webpki with
//! known flaws and panics on a certificate that it cannot read. No fault holds a byte of a private key.

mod witness;
mod words;
mod x509;

pub(super) use words::{left, told};

use super::settings::WallClock;
use super::{LinkFault, Tls, secret};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use witness::{Testimony, Witness};

/// Where systems keep the list of authorities: Debian and OpenWrt, Fedora, Alpine and the BSDs.
const SYSTEM_LISTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Authorities that are named in a fault; of more, only the number is told.
const MAX_NAMED: usize = 3;

/// What is known of an attempt with TLS when it fails.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    ca: PathBuf,
    /// The names in `ca`, for people.
    authorities: String,
    has_certificate: bool,
    alpn: Option<String>,
    testimony: Testimony,
}

/// The configuration of a connection with these files.
///
/// # Errors
/// A file is missing, holds nothing usable or is a secret that others may use, or certificate and key do not belong
/// together.
pub(super) fn client_config(tls: &Tls, clock: &WallClock) -> Result<(Arc<ClientConfig>, Trial), LinkFault> {
    let ca = match &tls.ca {
        Some(path) => path.clone(),
        None => system_list()?,
    };
    let roots = Arc::new(roots(&ca)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let refused = |why: String| LinkFault::Tls { cause: why };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .map_err(|e| refused(e.to_string()))?;
    let testimony = Testimony::default();
    let witness = Witness { verifier, testimony: testimony.clone() };
    let builder = ClientConfig::builder_with_details(provider, Arc::new(Time(clock.clone())))
        .with_safe_default_protocol_versions()
        .map_err(|e| refused(e.to_string()))?
        .dangerous()
        // Not dangerous: it verifies, by rustls' own verifier, and takes notes.
        .with_custom_certificate_verifier(Arc::new(witness));
    let mut config = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|e| file_fault(cert, format!("it does not go with {}: {e}", key.display())))?,
        (None, None) => builder.with_no_client_auth(),
        (Some(path), None) | (None, Some(path)) => {
            return Err(file_fault(path, "`cert` and `key` are needed together".into()));
        }
    };
    config.alpn_protocols = tls.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let (authorities, has_certificate, alpn) = (named(&roots), tls.cert.is_some(), tls.alpn.clone());
    Ok((Arc::new(config), Trial { ca, authorities, has_certificate, alpn, testimony }))
}

/// Certificates are valid by the clock that the service goes by.
#[derive(Debug)]
struct Time(WallClock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = self.0.now().utc.0 / crate::clock::SECOND;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
    }
}

fn roots(path: &Path) -> Result<RootCertStore, LinkFault> {
    let mut roots = RootCertStore::empty();
    // A system's list may hold a certificate that rustls cannot read; one good one is enough to go on.
    let (added, _) = roots.add_parsable_certificates(certificates(path)?);
    if added == 0 { Err(file_fault(path, "it holds no usable certificate".into())) } else { Ok(roots) }
}

fn named(roots: &RootCertStore) -> String {
    let names: Vec<String> = roots.roots.iter().take(MAX_NAMED).map(|root| x509::name(&root.subject)).collect();
    match roots.len().saturating_sub(MAX_NAMED) {
        0 => names.join("; "),
        more => format!("{} and {more} more", names.join("; ")),
    }
}

fn system_list() -> Result<PathBuf, LinkFault> {
    let found = SYSTEM_LISTS.iter().map(Path::new).find(|path| path.exists());
    found.map(Path::to_path_buf).ok_or_else(|| {
        file_fault(Path::new(SYSTEM_LISTS[0]), "there is no list of authorities on this system; set `ca`".into())
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LinkFault> {
    let file = std::fs::File::open(path).map_err(|e| file_fault(path, e.to_string()))?;
    let found: Result<Vec<_>, _> = rustls_pemfile::certs(&mut BufReader::new(file)).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => Err(file_fault(path, "it holds no PEM certificate".into())),
        Ok(certificates) => Ok(certificates),
        // The reader's own words cite the line that it stumbles over, and what was put here by mistake may be a key.
        Err(_) => Err(file_fault(path, "its PEM cannot be read; give each certificate as it was issued".into())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, LinkFault> {
    match rustls_pemfile::private_key(&mut secret::read(path)?.as_slice()) {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(file_fault(path, "it holds no PEM private key without a passphrase".into())),
        // See above: the reader's own words would put the key into the log.
        Err(_) => Err(file_fault(path, "its PEM cannot be read; are its line breaks lost?".into())),
    }
}

fn file_fault(path: &Path, cause: String) -> LinkFault {
    LinkFault::File { path: path.to_path_buf(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A key whose line breaks were lost on its way through a form or an environment variable is refused without a word of it.
    #[test]
    fn a_broken_key_is_not_cited() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("key");
        for text in [
            "-----BEGIN PRIVATE KEY-----MIIEsecretsecret-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\\nMIIEsecretsecret\\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nMIIE secret!secret\n-----END PRIVATE KEY-----\n",
            "-----BEGIN PRIVATE KEY-----\nMIIEsecretsecret\n",
            "MIIEsecretsecret",
        ] {
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("chmod");
            let faults = [private_key(&path).map(drop), certificates(&path).map(drop)];
            for told in faults.into_iter().filter_map(|read| read.err()).map(|fault| format!("{fault} {fault:?}")) {
                assert!(!told.contains("secret") && !told.contains("MIIE"), "{told}");
            }
            assert!(private_key(&path).is_err(), "{text}");
        }
    }
}
