//! Whose certificates are trusted, and which are ours.

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig};

/// Certificate authorities.
#[derive(Clone, Debug)]
pub enum Roots {
    /// Mozilla's, as compiled in: for machines without a bundle, such as bare containers.
    Compiled,
    /// Those of a PEM bundle and no others: the system's, to which an organisation may have added its own.
    Pem(Vec<u8>),
}

/// What is different with one server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own<'o> {
    /// Authorities to trust beside [`Roots`], in PEM.
    pub authorities: &'o [u8],
    /// Our certificates, and the key to the first of them, in PEM.
    pub identity: Option<(&'o [u8], &'o [u8])>,
    /// Whether anybody may be who he says he is.
    pub is_unverified: bool,
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
    /// The key to a certificate is none.
    #[error("the key to the certificate cannot be read")]
    Key(#[source] Box<ureq::Error>),
}

impl Roots {
    /// In the form that [`crate::config`] takes.
    ///
    /// # Errors
    /// [`RootsError`].
    pub fn tls(&self, own: Own<'_>) -> Result<TlsConfig, RootsError> {
        let builder = TlsConfig::builder().root_certs(self.with(own.authorities)?);
        let builder = builder.disable_verification(own.is_unverified);
        let Some((certificates, key)) = own.identity else { return Ok(builder.build()) };
        let key = PrivateKey::from_pem(key).map_err(|error| RootsError::Key(Box::new(error)))?;
        let identity = ClientCert::new_with_certs(&parse(certificates)?, key);
        Ok(builder.client_cert(Some(identity)).build())
    }

    fn with(&self, authorities: &[u8]) -> Result<RootCerts, RootsError> {
        match self {
            Self::Compiled if authorities.is_empty() => Ok(RootCerts::WebPki),
            // What is compiled in cannot be added to.
            Self::Compiled => Ok(RootCerts::from(parse(authorities)?)),
            Self::Pem(bundle) => {
                let mut certificates = parse(bundle)?;
                if !authorities.is_empty() {
                    certificates.extend(parse(authorities)?);
                }
                Ok(RootCerts::from(certificates))
            }
        }
    }
}

fn parse(pem: &[u8]) -> Result<Vec<Certificate<'static>>, RootsError> {
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(pem) {
        if let PemItem::Certificate(certificate) =
            item.map_err(|error| RootsError::Damaged(Box::new(error)))?
        {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() { Err(RootsError::Empty) } else { Ok(certificates) }
}
