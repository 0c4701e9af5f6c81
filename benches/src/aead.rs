//! Everything that seals and opens records, behind one trait: ours, the bare AEADs, snow's own, rustls's record layer.

use crate::Result;
use crate::tls::{Cipher, Provider};
use aws_lc_rs::aead as aws;
use claviger::noise::{Opener, Sealer};
use claviger::secret::CipherKey;
use claviger::wire::{FRAME_HEADER, MAX_RECORD_PLAINTEXT, TAG};
use ring::aead as ring;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::{ContentType, ProtocolVersion};
use std::hint::black_box;

const KEY: [u8; 32] = [5; 32];

/// Bytes that are in work at once: no more than stays in the second cache.
const WORKING_SET: usize = 256 * 1024;

/// The longest plaintext of a TLS record (RFC 8446, section 5.1). A longer one is several.
const TLS_RECORD: usize = 16 * 1024;

/// Records of one length, one after the other.
pub trait Records {
    /// Makes what [`run`](Self::run) works on. Not measured.
    fn prepare(&mut self) {}

    /// Seals or opens [`batch`] records.
    fn run(&mut self);
}

/// How many records of `len` bytes are in work at once.
pub fn batch(len: usize) -> usize {
    (WORKING_SET / len).max(4)
}

/// Who seals and opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// claviger's `Sealer` and `Opener`, frame header and all, in place.
    Ours,
    /// The same with the copy from somebody's buffer to where the record is.
    Copying,
    /// The bare AEAD of one of the two, in place: nothing can be faster with it.
    Raw(Provider),
    /// snow with the primitives that it brings itself.
    Snow,
    /// rustls's record layer alone.
    Rustls(Provider),
}

impl Who {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::Ours,
        Self::Copying,
        Self::Raw(Provider::AwsLc),
        Self::Raw(Provider::Ring),
        Self::Snow,
        Self::Rustls(Provider::AwsLc),
        Self::Rustls(Provider::Ring),
    ];

    /// As it is printed.
    pub fn name(self) -> String {
        match self {
            Self::Ours => "claviger".into(),
            Self::Copying => "with a copy".into(),
            Self::Raw(provider) => provider.name().into(),
            Self::Snow => "snow".into(),
            Self::Rustls(provider) => format!("rustls, {}", provider.name()),
        }
    }

    /// Its sealing of records of `len` bytes.
    ///
    /// # Errors
    /// Those of setting it up.
    pub fn sealing(self, cipher: Cipher, len: usize) -> Result<Box<dyn Records>> {
        let plain = vec![7; len];
        Ok(match self {
            Self::Ours => {
                let sealer = Sealer::new(cipher.suite(), &CipherKey::new(KEY))?;
                let frame = FRAME_HEADER + len + TAG;
                Box::new(Seal { sealer, frames: vec![7; frame * batch(len)], frame })
            }
            Self::Copying => {
                let sealer = Sealer::new(cipher.suite(), &CipherKey::new(KEY))?;
                let out = Vec::with_capacity(batch(len) * (FRAME_HEADER + len + TAG));
                Box::new(CopySeal { sealer, out, plain })
            }
            Self::Raw(provider) => {
                Box::new(RawSeal { aead: Aead::new(provider, cipher)?, plain: plain.repeat(batch(len)), len })
            }
            Self::Snow => {
                let [sending, _] = snow_pair(cipher)?;
                Box::new(SnowSeal { sending, out: vec![0; len + TAG], plain })
            }
            Self::Rustls(provider) => {
                let suite = cipher.suite_of(&provider.provider()).ok_or("no such suite")?;
                let encrypter = suite.aead_alg.encrypter(AeadKey::from(KEY), Iv::from([0; 12]));
                Box::new(TlsSeal { encrypter, number: 0, plain })
            }
        })
    }

    /// Its opening of records of `len` bytes.
    ///
    /// # Errors
    /// Those of setting it up.
    pub fn opening(self, cipher: Cipher, len: usize) -> Result<Box<dyn Records>> {
        let plain = vec![7; len];
        Ok(match self {
            Self::Ours | Self::Copying => Box::new(Open {
                copy: (self == Self::Copying).then(|| vec![0; len]),
                sealer: Sealer::new(cipher.suite(), &CipherKey::new(KEY))?,
                opener: Opener::new(cipher.suite(), &CipherKey::new(KEY))?,
                sealed: Vec::new(),
                plain,
            }),
            Self::Raw(provider) => {
                let aead = Aead::new(provider, cipher)?;
                let mut record = plain;
                let tag = aead.seal(&mut record);
                record.extend_from_slice(&tag);
                Box::new(RawOpen { aead, records: record.repeat(batch(len)), record })
            }
            Self::Snow => {
                let [sending, receiving] = snow_pair(cipher)?;
                Box::new(SnowOpen { sending, receiving, sealed: Vec::new(), out: vec![0; len], plain })
            }
            Self::Rustls(provider) => {
                let suite = cipher.suite_of(&provider.provider()).ok_or("no such suite")?;
                let encrypter = suite.aead_alg.encrypter(AeadKey::from(KEY), Iv::from([0; 12]));
                let decrypter = suite.aead_alg.decrypter(AeadKey::from(KEY), Iv::from([0; 12]));
                Box::new(TlsOpen { encrypter, decrypter, sealed: Vec::new(), numbers: [0; 2], plain })
            }
        })
    }
}

#[allow(clippy::large_enum_variant, reason = "ring keeps its key in place, and so would who uses it")]
enum Aead {
    AwsLc(aws::LessSafeKey),
    Ring(ring::LessSafeKey),
}

impl Aead {
    fn new(provider: Provider, cipher: Cipher) -> Result<Self> {
        Ok(match provider {
            Provider::AwsLc => {
                let algorithm = if cipher == Cipher::Aes { &aws::AES_256_GCM } else { &aws::CHACHA20_POLY1305 };
                Self::AwsLc(aws::LessSafeKey::new(aws::UnboundKey::new(algorithm, &KEY)?))
            }
            Provider::Ring => {
                let algorithm = if cipher == Cipher::Aes { &ring::AES_256_GCM } else { &ring::CHACHA20_POLY1305 };
                let key = ring::UnboundKey::new(algorithm, &KEY).map_err(|_| "ring refuses its key")?;
                Self::Ring(ring::LessSafeKey::new(key))
            }
        })
    }

    /// One nonce for all: an AEAD's time does not depend on it.
    fn seal(&self, data: &mut [u8]) -> [u8; TAG] {
        let mut out = [0; TAG];
        match self {
            Self::AwsLc(key) => {
                let nonce = aws::Nonce::assume_unique_for_key([0; 12]);
                let tag = key.seal_in_place_separate_tag(nonce, aws::Aad::empty(), data).unwrap();
                out.copy_from_slice(tag.as_ref());
            }
            Self::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key([0; 12]);
                let tag = key.seal_in_place_separate_tag(nonce, ring::Aad::empty(), data).unwrap();
                out.copy_from_slice(tag.as_ref());
            }
        }
        out
    }

    fn open(&self, data: &mut [u8]) {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws::Nonce::assume_unique_for_key([0; 12]);
                black_box(key.open_in_place(nonce, aws::Aad::empty(), data).unwrap());
            }
            Self::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key([0; 12]);
                black_box(key.open_in_place(nonce, ring::Aad::empty(), data).unwrap());
            }
        }
    }
}

struct Seal {
    sealer: Sealer,
    frames: Vec<u8>,
    /// Bytes of one.
    frame: usize,
}

impl Records for Seal {
    fn run(&mut self) {
        for frame in self.frames.chunks_exact_mut(self.frame) {
            self.sealer.seal_in_place(black_box(frame)).unwrap();
        }
    }
}

struct CopySeal {
    sealer: Sealer,
    out: Vec<u8>,
    plain: Vec<u8>,
}

impl Records for CopySeal {
    fn run(&mut self) {
        self.out.clear();
        for _ in 0..batch(self.plain.len()) {
            self.sealer.seal(black_box(&self.plain), &mut self.out).unwrap();
        }
    }
}

struct RawSeal {
    aead: Aead,
    plain: Vec<u8>,
    len: usize,
}

impl Records for RawSeal {
    fn run(&mut self) {
        for record in self.plain.chunks_exact_mut(self.len) {
            black_box(self.aead.seal(black_box(record)));
        }
    }
}

struct SnowSeal {
    sending: snow::TransportState,
    out: Vec<u8>,
    plain: Vec<u8>,
}

impl Records for SnowSeal {
    fn run(&mut self) {
        for _ in 0..batch(self.plain.len()) {
            self.sending.write_message(black_box(&self.plain), &mut self.out).unwrap();
        }
    }
}

struct TlsSeal {
    encrypter: Box<dyn MessageEncrypter>,
    number: u64,
    plain: Vec<u8>,
}

/// Seals `plain` as rustls does, in as many records as it takes.
fn tls_seal(encrypter: &mut dyn MessageEncrypter, number: &mut u64, plain: &[u8], mut take: impl FnMut(Vec<u8>)) {
    for part in plain.chunks(TLS_RECORD) {
        let (typ, version) = (ContentType::ApplicationData, ProtocolVersion::TLSv1_2);
        let message = OutboundPlainMessage { typ, version, payload: OutboundChunks::Single(part) };
        take(encrypter.encrypt(message, *number).unwrap().encode());
        *number += 1;
    }
}

impl Records for TlsSeal {
    fn run(&mut self) {
        for _ in 0..batch(self.plain.len()) {
            tls_seal(&mut *self.encrypter, &mut self.number, black_box(&self.plain), |record| {
                black_box(record);
            });
        }
    }
}

struct Open {
    sealer: Sealer,
    opener: Opener,
    sealed: Vec<u8>,
    plain: Vec<u8>,
    /// Where the plaintext is copied to, if it is.
    copy: Option<Vec<u8>>,
}

impl Records for Open {
    fn prepare(&mut self) {
        self.sealed.clear();
        for _ in 0..batch(self.plain.len()) {
            self.sealer.seal(&self.plain, &mut self.sealed).unwrap();
        }
    }

    fn run(&mut self) {
        for record in self.sealed.chunks_exact_mut(FRAME_HEADER + self.plain.len() + TAG) {
            let plain = self.opener.open(black_box(&mut record[FRAME_HEADER..])).unwrap();
            if let Some(copy) = &mut self.copy {
                copy.copy_from_slice(plain);
            }
            black_box(plain);
        }
    }
}

struct RawOpen {
    aead: Aead,
    record: Vec<u8>,
    records: Vec<u8>,
}

impl Records for RawOpen {
    fn prepare(&mut self) {
        self.records.chunks_exact_mut(self.record.len()).for_each(|record| record.copy_from_slice(&self.record));
    }

    fn run(&mut self) {
        for record in self.records.chunks_exact_mut(self.record.len()) {
            self.aead.open(black_box(record));
        }
    }
}

struct SnowOpen {
    sending: snow::TransportState,
    receiving: snow::TransportState,
    sealed: Vec<u8>,
    out: Vec<u8>,
    plain: Vec<u8>,
}

impl Records for SnowOpen {
    fn prepare(&mut self) {
        let record = self.plain.len() + TAG;
        self.sealed.resize(batch(self.plain.len()) * record, 0);
        for record in self.sealed.chunks_exact_mut(record) {
            self.sending.write_message(&self.plain, record).unwrap();
        }
    }

    fn run(&mut self) {
        for record in self.sealed.chunks_exact(self.plain.len() + TAG) {
            self.receiving.read_message(black_box(record), &mut self.out).unwrap();
        }
    }
}

struct TlsOpen {
    encrypter: Box<dyn MessageEncrypter>,
    decrypter: Box<dyn MessageDecrypter>,
    sealed: Vec<Vec<u8>>,
    /// Sealed and opened so far.
    numbers: [u64; 2],
    plain: Vec<u8>,
}

/// Bytes of a TLS record's header.
const TLS_HEADER: usize = 5;

impl Records for TlsOpen {
    fn prepare(&mut self) {
        self.sealed.clear();
        for _ in 0..batch(self.plain.len()) {
            tls_seal(&mut *self.encrypter, &mut self.numbers[0], &self.plain, |record| self.sealed.push(record));
        }
    }

    fn run(&mut self) {
        for record in &mut self.sealed {
            let payload = black_box(&mut record[TLS_HEADER..]);
            let message = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload);
            black_box(self.decrypter.decrypt(message, self.numbers[1]).unwrap().payload.len());
            self.numbers[1] += 1;
        }
    }
}

/// Two ends that have shaken hands: the first sends, the second receives.
fn snow_pair(cipher: Cipher) -> Result<[snow::TransportState; 2]> {
    let name = match cipher {
        Cipher::ChaCha => "Noise_NN_25519_ChaChaPoly_BLAKE2s",
        Cipher::Aes => "Noise_NN_25519_AESGCM_SHA256",
    };
    let builder = || Ok::<_, snow::Error>(snow::Builder::new(name.parse()?));
    let (mut one, mut other) = (builder()?.build_initiator()?, builder()?.build_responder()?);
    let (mut message, mut payload) = ([0; 128], [0; 128]);
    let len = one.write_message(&[], &mut message)?;
    other.read_message(&message[..len], &mut payload)?;
    let len = other.write_message(&[], &mut message)?;
    one.read_message(&message[..len], &mut payload)?;
    Ok([one.into_transport_mode()?, other.into_transport_mode()?])
}

/// The longest record is not a round number: what one can carry.
pub const LENGTHS: [usize; 5] = [256, 1024, 4096, 16 * 1024, MAX_RECORD_PLAINTEXT];
