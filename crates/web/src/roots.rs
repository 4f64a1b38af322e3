//! Whose certificates are trusted.

use ureq::tls::{Certificate, PemItem, RootCerts};

/// Certificate authorities.
#[derive(Clone, Debug)]
pub enum Roots {
    /// Mozilla's, as compiled in: for machines without a bundle, such as bare containers.
    Compiled,
    /// Those of a PEM bundle and no others: the system's, to which an organisation may have added its own.
    Pem(Vec<u8>),
}

/// Why there is nobody to trust.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The bundle is damaged.
    #[error("the certificate bundle cannot be read")]
    Damaged(#[source] Box<ureq::Error>),
    /// The bundle holds no certificate.
    #[error("the certificate bundle has no certificate in it")]
    Empty,
}

impl Roots {
    /// In the form that [`crate::config`] takes.
    ///
    /// # Errors
    /// [`RootsError`].
    pub fn certificates(&self) -> Result<RootCerts, RootsError> {
        let Self::Pem(bundle) = self else { return Ok(RootCerts::WebPki) };
        let mut certificates = Vec::<Certificate<'static>>::new();
        for item in ureq::tls::parse_pem(bundle) {
            if let PemItem::Certificate(certificate) =
                item.map_err(|error| RootsError::Damaged(Box::new(error)))?
            {
                certificates.push(certificate);
            }
        }
        if certificates.is_empty() { Err(RootsError::Empty) } else { Ok(RootCerts::from(certificates)) }
    }
}
