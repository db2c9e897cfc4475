//! TLS for MQTT: a rustls client configuration of our own, with ring.
//!
//! What enters: paths of PEM files. What leaves: a configuration. Built here rather than by rumqttc, whose own way goes
//! through an old rustls-webpki with known flaws and panics on a certificate that it cannot read.

use super::{LinkFault, Tls};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where systems keep the list of authorities: Debian and OpenWrt, Fedora, Alpine and the BSDs.
const SYSTEM_LISTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The configuration of a connection with these files.
///
/// # Errors
/// A file is missing or holds nothing usable, or certificate and key do not belong together.
pub(super) fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>, LinkFault> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| LinkFault::Tls { cause: e.to_string() })?
        .with_root_certificates(roots(tls)?);
    let config = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|e| file_fault(cert, format!("it does not go with {}: {e}", key.display())))?,
        (None, None) => builder.with_no_client_auth(),
        (Some(path), None) | (None, Some(path)) => {
            return Err(file_fault(path, "`cert` and `key` are needed together".into()));
        }
    };
    Ok(Arc::new(config))
}

fn roots(tls: &Tls) -> Result<RootCertStore, LinkFault> {
    let path = match &tls.ca {
        Some(path) => path.clone(),
        None => system_list()?,
    };
    let mut roots = RootCertStore::empty();
    // A system's list may hold a certificate that rustls cannot read; one good one is enough to go on.
    let (added, _) = roots.add_parsable_certificates(certificates(&path)?);
    if added == 0 { Err(file_fault(&path, "it holds no usable certificate".into())) } else { Ok(roots) }
}

fn system_list() -> Result<PathBuf, LinkFault> {
    let found = SYSTEM_LISTS.iter().map(Path::new).find(|path| path.exists());
    found.map(Path::to_path_buf).ok_or_else(|| {
        file_fault(Path::new(SYSTEM_LISTS[0]), "there is no list of authorities on this system; set `ca`".into())
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LinkFault> {
    let found: Result<Vec<_>, _> = rustls_pemfile::certs(&mut open(path)?).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => Err(file_fault(path, "it holds no PEM certificate".into())),
        Ok(certificates) => Ok(certificates),
        Err(e) => Err(file_fault(path, e.to_string())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, LinkFault> {
    match rustls_pemfile::private_key(&mut open(path)?) {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(file_fault(path, "it holds no PEM private key".into())),
        Err(e) => Err(file_fault(path, e.to_string())),
    }
}

fn open(path: &Path) -> Result<BufReader<std::fs::File>, LinkFault> {
    std::fs::File::open(path).map(BufReader::new).map_err(|e| file_fault(path, e.to_string()))
}

fn file_fault(path: &Path, cause: String) -> LinkFault {
    LinkFault::File { path: path.to_path_buf(), cause }
}
