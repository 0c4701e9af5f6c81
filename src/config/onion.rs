//! `[onion]`: how this machine's onion service is published. Read by every program that listens.

use super::value;
use serde::{Deserialize, Deserializer, de::Error as _};

/// `[onion]`: this machine's onion service. What a transport can not do is refused when it opens or listens, never ignored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Onion {
    /// Whether only peers find it (restricted discovery): its descriptor is encrypted to the client-authorization keys of their cards. Default: yes.
    pub restricted: bool,
    /// Relays at which it is introduced to callers, 3 to 20; more of them let more callers in at once, and more relays see that it is busy. arti alone can set it;
    /// for a tor daemon it is `HiddenServiceNumIntroductionPoints` of a service in torrc. Default: Tor's own, which is 3.
    #[serde(deserialize_with = "introduction_points")]
    pub introduction_points: Option<u8>,
    /// Callers that each of those relays lets through, so many a second after a burst. arti alone can set it; in torrc it is
    /// `HiddenServiceEnableIntroDoSDefense`. Default: none, which leaves it to the network's consensus.
    pub introduction_limit: Option<IntroductionLimit>,
    /// Whether callers prove work while the service is under load. Needs a claviger built with `pow`, or tor 0.4.9.2 and later. Default: no.
    pub proof_of_work: bool,
    /// Streams at once on one circuit, 1 to 65535; a caller that opens one more loses the circuit. Each session is one stream, and all of a peer's may be on
    /// one circuit. Default: 256.
    #[serde(deserialize_with = "streams")]
    pub streams_per_circuit: u16,
    /// How the second and third relays of circuits are chosen against those who look for this machine's guard (Tor proposals 292 and 333). arti alone can
    /// set it. Default: as Tor does, which is lite.
    pub vanguards: Option<Vanguards>,
}

/// Callers that a relay lets through to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct IntroductionLimit {
    /// A second, 1 to 1 000 000.
    #[serde(deserialize_with = "value::count")]
    pub rate: u32,
    /// At once, after a pause; 1 to 1 000 000, and no less than `rate`.
    #[serde(deserialize_with = "value::count")]
    pub burst: u32,
}

/// Which layers of a circuit are of a small set of relays that stays for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vanguards {
    /// The second relay.
    Lite,
    /// The second and the third. Circuits are longer.
    Full,
}

impl Default for Onion {
    fn default() -> Self {
        Self {
            restricted: true,
            introduction_points: None,
            introduction_limit: None,
            proof_of_work: false,
            streams_per_circuit: 256,
            vanguards: None,
        }
    }
}

fn introduction_points<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    match u8::deserialize(deserializer)? {
        count @ 3..=20 => Ok(Some(count)),
        _ => Err(D::Error::custom("an onion service has 3 to 20 introduction points")),
    }
}

fn streams<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    match u16::deserialize(deserializer)? {
        0 => Err(D::Error::custom("a circuit has at least 1 stream")),
        count => Ok(count),
    }
}
