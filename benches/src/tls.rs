//! rustls as people set it up for two machines that know each other: TLS 1.3, a certificate at each end, pinned by the other.

use crate::Result;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{CipherSuite, ClientConfig, NamedGroup, RootCertStore, ServerConfig, Tls13CipherSuite};
use std::path::Path;
use std::sync::Arc;

/// Whose primitives rustls uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// aws-lc-rs.
    AwsLc,
    /// ring.
    Ring,
}

impl Provider {
    /// Both.
    pub const ALL: [Self; 2] = [Self::AwsLc, Self::Ring];

    /// As it is printed, and named on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AwsLc => "aws-lc-rs",
            Self::Ring => "ring",
        }
    }

    /// All that the provider has.
    pub fn provider(self) -> CryptoProvider {
        match self {
            Self::AwsLc => rustls::crypto::aws_lc_rs::default_provider(),
            Self::Ring => rustls::crypto::ring::default_provider(),
        }
    }
}

/// One of the two ciphers that a session may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    /// ChaCha20-Poly1305.
    ChaCha,
    /// AES-256-GCM.
    Aes,
}

impl Cipher {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ChaCha, Self::Aes];

    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChaCha => "ChaCha20-Poly1305",
            Self::Aes => "AES-256-GCM",
        }
    }

    /// The session's suite with this cipher.
    pub fn suite(self) -> claviger::identity::Suite {
        match self {
            Self::ChaCha => claviger::identity::Suite::ChaChaPolyBlake2s,
            Self::Aes => claviger::identity::Suite::AesGcmSha256,
        }
    }

    fn tls(self) -> CipherSuite {
        match self {
            Self::ChaCha => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
            Self::Aes => CipherSuite::TLS13_AES_256_GCM_SHA384,
        }
    }

    /// TLS 1.3 with this cipher.
    pub fn suite_of(self, provider: &CryptoProvider) -> Option<&'static Tls13CipherSuite> {
        provider.cipher_suites.iter().find(|suite| suite.suite() == self.tls())?.tls13()
    }
}

/// What certificates are signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-256.
    P256,
}

/// One end's certificate and key, DER.
pub struct Identity {
    /// X.509, signed by itself.
    pub certificate: Vec<u8>,
    /// PKCS#8.
    pub key: Vec<u8>,
}

impl Identity {
    /// A new one. Every end is called [`NAME`].
    ///
    /// # Errors
    /// Those of rcgen.
    pub fn new(signature: Signature) -> Result<Self> {
        let algorithm = match signature {
            Signature::Ed25519 => &PKCS_ED25519,
            Signature::P256 => &PKCS_ECDSA_P256_SHA256,
        };
        let key = KeyPair::generate_for(algorithm)?;
        let certificate = CertificateParams::new(vec![NAME.to_owned()])?.self_signed(&key)?;
        Ok(Self { certificate: certificate.der().to_vec(), key: key.serialize_der() })
    }

    /// Writes it below `dir`, which is made.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("certificate.der"), &self.certificate)?;
        Ok(std::fs::write(dir.join("key.der"), &self.key)?)
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read(dir: &Path) -> Result<Self> {
        let read = |name| std::fs::read(dir.join(name));
        Ok(Self { certificate: read("certificate.der")?, key: read("key.der")? })
    }
}

/// What every end is called in its certificate.
pub const NAME: &str = "bench.local";

/// The name that is dialled.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from(NAME).unwrap()
}

/// The two ends' configurations. `group`: the only key exchange; none takes the provider's own list. No tickets: nothing is resumed here.
///
/// # Errors
/// Those of rustls.
pub fn configs(
    provider: Provider,
    cipher: Option<Cipher>,
    group: Option<NamedGroup>,
    [server, client]: [&Identity; 2],
) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>)> {
    let mut crypto = provider.provider();
    crypto.cipher_suites.retain(|suite| cipher.is_none_or(|cipher| suite.suite() == cipher.tls()));
    crypto.kx_groups.retain(|kx| group.is_none_or(|group| kx.name() == group));
    let crypto = Arc::new(crypto);
    let roots = |identity: &Identity| -> Result<_> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(identity.certificate.clone()))?;
        Ok(Arc::new(roots))
    };
    let own = |identity: &Identity| -> Result<_> {
        let key = PrivateKeyDer::try_from(identity.key.clone())?;
        Ok((vec![CertificateDer::from(identity.certificate.clone())], key))
    };
    let tls13 = &[&rustls::version::TLS13];
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(client)?, Arc::clone(&crypto)).build()?;
    let (chain, key) = own(server)?;
    let mut accepting = ServerConfig::builder_with_provider(Arc::clone(&crypto))
        .with_protocol_versions(tls13)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    accepting.send_tls13_tickets = 0;
    let (chain, key) = own(client)?;
    let mut dialling = ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(tls13)?
        .with_root_certificates(roots(server)?)
        .with_client_auth_cert(chain, key)?;
    dialling.resumption = rustls::client::Resumption::disabled();
    Ok((Arc::new(accepting), Arc::new(dialling)))
}
