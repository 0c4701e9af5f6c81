//! The configuration files of the private network, as text.

use std::fmt::Write as _;
use std::path::Path;

use data_encoding::BASE64;

use super::keys::Authority;

/// Seconds between two consensuses. Divides 30 minutes, as tor demands. With rounds of 20 s arti clients starve.
pub(super) const ROUND: u64 = 300;

/// Minutes of an onion service's time period. arti reads it from the consensus; tor with `TestingTorNetwork` ignores
/// that and uses 24 rounds. Both must agree, or clients look for descriptors where services did not put them.
const HSDIR_INTERVAL: u64 = 24 * ROUND / 60;

/// When a network begins, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// The daemons are started.
    pub(super) start: u64,
    /// The first consensus is published; votes are cast four seconds before.
    pub(super) due: u64,
}

/// The torrc fragment that puts any tor, authority or client, on this network.
pub(super) fn network(authorities: &[Authority]) -> String {
    let mut text = String::from(
        "# The private Tor network: `%include` this file in a torrc.\n\
         TestingTorNetwork 1\n\
         PathsNeededToBuildCircuits 0.67\n\
         Schedulers Vanilla\n",
    );
    for a in authorities {
        let Authority { name, or_port, dir_port, rsa, v3ident, .. } = a;
        let _ =
            writeln!(text, "DirAuthority {name} orport={or_port} no-v2 v3ident={v3ident} 127.0.0.1:{dir_port} {rsa}");
    }
    text
}

/// The lines every daemon has: where its data are, where it logs (standard output), and who must live for it to live.
pub(super) fn daemon(fragment: &Path, data: &Path, owner: Option<u32>) -> String {
    let owner = owner.map_or(String::new(), |pid| format!("__OwningControllerProcess {pid}\n"));
    format!(
        "%include {fragment}\n\
         DataDirectory {data}\n\
         Log notice stdout\n\
         SafeLogging 0\n\
         ShutdownWaitLength 0\n\
         {owner}",
        fragment = quoted(fragment),
        data = quoted(data),
    )
}

/// What makes a daemon a relay and directory authority.
pub(super) fn authority(a: &Authority, clock: Clock) -> String {
    let Authority { name, or_port, dir_port, .. } = a;
    format!(
        "Nickname {name}\n\
         Address 127.0.0.1\n\
         ORPort 127.0.0.1:{or_port} IPv4Only\n\
         DirPort 127.0.0.1:{dir_port} IPv4Only\n\
         SocksPort 0\n\
         ExitRelay 0\n\
         ExitPolicy reject *:*\n\
         ContactInfo nobody\n\
         AssumeReachable 1\n\
         MaxMemInQueues 256 MB\n\
         NumCPUs 1\n\
         ServerDNSDetectHijacking 0\n\
         ServerDNSTestAddresses\n\
         ServerDNSResolvConfFile /dev/null\n\
         AuthoritativeDirectory 1\n\
         V3AuthoritativeDirectory 1\n\
         TestingDirAuthVoteExit *\n\
         TestingDirAuthVoteGuard *\n\
         TestingDirAuthVoteHSDir *\n\
         TestingMinExitFlagThreshold 0\n\
         TestingV3AuthInitialVotingInterval {ROUND}\n\
         TestingV3AuthInitialVoteDelay 2\n\
         TestingV3AuthInitialDistDelay 2\n\
         TestingV3AuthVotingStartOffset {offset}\n\
         V3AuthVotingInterval {ROUND}\n\
         V3AuthVoteDelay 2\n\
         V3AuthDistDelay 2\n\
         V3AuthNIntervalsValid 3\n\
         ConsensusParams hsdir_interval={HSDIR_INTERVAL} cbtdisabled=1 cbtinitialtimeout=5000\n",
        offset = clock.due % ROUND,
    )
}

/// An authority's `sr-state` file. A network agrees on its first shared random value after 24 rounds, and places no
/// onion service descriptor before; so all authorities start with the same two values. They are public and constant.
pub(super) fn shared_random(authorities: usize, clock: Clock) -> String {
    let value = |byte| BASE64.encode(&[byte; 32]);
    format!(
        "Version 1\n\
         TorVersion 0.4.9\n\
         ValidAfter {}\n\
         ValidUntil {}\n\
         SharedRandPreviousValue {authorities} {}\n\
         SharedRandCurrentValue {authorities} {}\n",
        utc(clock.start),
        utc(clock.start + 24 * 3600),
        value(1),
        value(2),
    )
}

/// The same network in arti's own configuration format. It names no storage: each client needs directories of its own.
pub(super) fn arti(authorities: &[Authority]) -> String {
    let v3idents: Vec<String> = authorities.iter().map(|a| format!("\"{}\"", a.v3ident)).collect();
    let mut text = format!(
        "# The private Tor network, in arti's configuration format.\n\n\
         # Every relay is at 127.0.0.1; a prefix longer than the address makes no two of them one family.\n\
         [path_rules]\n\
         ipv4_subnet_family_prefix = 33\n\
         ipv6_subnet_family_prefix = 129\n\n\
         # A client that asked for a descriptor too early may ask again soon; the default is 15 minutes.\n\
         [circuit_timing]\n\
         hs_dir_requery_interval = \"1s\"\n\n\
         # There is nothing to exit to.\n\
         [preemptive_circuits]\n\
         disable_at_threshold = 0\n\
         initial_predicted_ports = []\n\n\
         # `uploads`, `downloads` and `votes` are for relays; empty, so that none is left at the public network's.\n\
         [tor_network.authorities]\n\
         v3idents = [{}]\n\
         uploads = []\n\
         downloads = []\n\
         votes = []\n",
        v3idents.join(", "),
    );
    for Authority { rsa, ed25519, or_port, .. } in authorities {
        let _ = write!(
            text,
            "\n[[tor_network.fallback_caches]]\n\
             rsa_identity = \"{rsa}\"\n\
             ed_identity = \"{ed25519}\"\n\
             orports = [\"127.0.0.1:{or_port}\"]\n",
        );
    }
    text
}

/// A path or word as a quoted torrc value.
pub(super) fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\""))
}

/// `YYYY-MM-DD HH:MM:SS`, UTC, of seconds since 1970.
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Years counted from March of year 0, so that the leap day is a year's last (Howard Hinnant, `civil_from_days`).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(utc(1_709_251_199), "2024-02-29 23:59:59");
        assert_eq!(utc(1_735_689_599), "2024-12-31 23:59:59");
        assert_eq!(utc(1_794_000_000), "2026-11-06 21:20:00");
    }
}
