//! Verifies the broker as rustls does, and remembers who presented what: rustls says *unknown issuer*, not which.
//!
//! What enters: a certificate chain. What leaves: rustls' own verdict, unchanged; and [`Testimony`] of a refused one.

use super::x509;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use std::sync::{Arc, Mutex, PoisonError};

/// The issuer of the last certificate in the chain that was refused, once there is one.
#[derive(Debug, Clone, Default)]
pub(in crate::mqtt) struct Testimony(Arc<Mutex<Option<String>>>);

impl Testimony {
    pub(in crate::mqtt) fn issuer(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, issuer: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = issuer;
    }
}

#[derive(Debug)]
pub(super) struct Witness {
    pub(super) verifier: Arc<WebPkiServerVerifier>,
    pub(super) testimony: Testimony,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.verifier.verify_server_cert(leaf, intermediates, name, ocsp, now);
        if verdict.is_err() {
            self.testimony.note(x509::issuer(intermediates.last().unwrap_or(leaf)));
        }
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
