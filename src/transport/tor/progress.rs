//! How far a tor daemon is, by a control connection that only listens.

use super::auth::authenticate;
use super::control::Control;
use super::reply::value;
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::progress::{Blocked, Progress, Stage, set};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{interval, sleep};

/// Pauses between two tries to reach tor: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];
/// How often tor is asked, beside what it tells by itself.
const ASK: Duration = Duration::from_secs(15);
/// A clock that is off by more is told of while tor has no circuits; tor tells of any that matters to it.
const SKEW: i64 = 60;

/// Follows tor for ever, also where it is restarted.
pub(super) async fn follow(config: config::Tor, progress: watch::Sender<Progress>) {
    let mut pause = PAUSES[0];
    loop {
        let error = match connect(&config).await {
            Ok(control) => {
                pause = PAUSES[0];
                watch(control, &progress).await
            }
            Err(error) => error,
        };
        set(&progress, unavailable(&error));
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES[1]);
    }
}

fn unavailable(error: &Error) -> Progress {
    let summary = match error.kind() {
        ErrorKind::ControlRefused => "tor does not let us in",
        _ => "tor is not there",
    };
    let blocked = Blocked { what: error.to_string(), hint: error.hint().to_owned() };
    Progress { stage: Stage::Unavailable, percent: 0, summary: summary.into(), blocked: Some(blocked) }
}

async fn connect(config: &config::Tor) -> Result<Control> {
    let mut control = Control::connect(&config.control).await?;
    authenticate(&mut control, config).await?;
    let reply = control.ask("SETEVENTS STATUS_CLIENT STATUS_GENERAL NETWORK_LIVENESS\r\n").await?;
    if reply.status == 250 {
        return Ok(control);
    }
    Err(Error::new(
        ErrorKind::ControlRefused,
        "tor refused to report events.",
        "See tor's log with `journalctl -u tor@default`; a filter before the control port must let SETEVENTS and GETINFO pass.",
    ))
}

async fn watch(mut control: Control, progress: &watch::Sender<Progress>) -> Error {
    let mut seen = Seen::default();
    let mut asking = interval(ASK);
    loop {
        tokio::select! {
            event = control.event() => match event {
                Ok(event) => seen.event(event.message()),
                Err(error) => return error,
            },
            _ = asking.tick() => {
                for (key, take) in QUESTIONS {
                    match control.ask(&format!("GETINFO {key}\r\n")).await {
                        Ok(reply) => if let Some(answer) = reply.after(&format!("{key}=")) {
                            take(&mut seen, answer);
                        },
                        Err(error) => return error,
                    }
                }
            }
        }
        set(progress, seen.progress());
    }
}

type Take = fn(&mut Seen, &str);

/// control-spec, section 3.9.
const QUESTIONS: [(&str, Take); 3] = [
    ("status/bootstrap-phase", Seen::bootstrap),
    ("status/circuit-established", |seen, answer| seen.circuits = answer == "1"),
    ("network-liveness", |seen, answer| seen.down = answer == "down"),
];

/// What tor has said.
#[derive(Default)]
struct Seen {
    percent: u8,
    summary: String,
    /// What it says of a bootstrap that does not go on.
    warning: Option<String>,
    circuits: bool,
    down: bool,
    /// By how many seconds its clock is ahead of the network's.
    skew: Option<i64>,
}

/// A word's value, as far as it can be shown.
fn word(text: &str, key: &str) -> Option<String> {
    let value = value(text, key).ok().flatten()?;
    let text = String::from_utf8_lossy(&value).chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    (!text.is_empty()).then_some(text)
}

impl Seen {
    /// One event of control-spec, section 4.1.10 (`STATUS_CLIENT`, `STATUS_GENERAL`) and 4.1.26 (`NETWORK_LIVENESS`).
    fn event(&mut self, event: &str) {
        let mut words = event.splitn(4, ' ');
        let [kind, severity, action, rest] = [(); 4].map(|()| words.next().unwrap_or_default());
        match (kind, action) {
            ("NETWORK_LIVENESS", _) => self.down = severity == "DOWN",
            ("STATUS_CLIENT", "BOOTSTRAP") => self.bootstrap(event.strip_prefix("STATUS_CLIENT ").unwrap_or_default()),
            ("STATUS_CLIENT", "CIRCUIT_ESTABLISHED") => self.circuits = true,
            ("STATUS_CLIENT", "CIRCUIT_NOT_ESTABLISHED") => self.circuits = false,
            ("STATUS_GENERAL", "CLOCK_SKEW") => self.skew = word(rest, "SKEW").and_then(|skew| skew.parse().ok()),
            _ => {}
        }
    }

    /// `SEVERITY BOOTSTRAP PROGRESS=… TAG=… SUMMARY="…" [WARNING="…" …]`.
    fn bootstrap(&mut self, phase: &str) {
        let Some(percent) = word(phase, "PROGRESS").and_then(|percent| percent.parse::<u8>().ok()) else { return };
        self.percent = percent.min(100);
        self.summary = word(phase, "SUMMARY").unwrap_or_default();
        self.warning = word(phase, "WARNING");
    }

    fn progress(&self) -> Progress {
        let Self { percent, summary, warning, circuits, down, skew } = self;
        let summary = if summary.is_empty() { "connecting" } else { summary }.to_owned();
        let stuck = *percent < 100 || !circuits;
        match (skew, warning) {
            (Some(skew), _) if stuck && skew.abs() > SKEW => {
                let (by, which) = (skew.abs(), if *skew > 0 { "ahead of" } else { "behind" });
                let what = format!("This machine's clock is {by} s {which} Tor's");
                Progress::blocked(Stage::ClockWrong, *percent, summary, &what)
            }
            _ if *down => Progress::blocked(
                Stage::Offline,
                *percent,
                summary,
                "tor has heard nothing from the network for some time",
            ),
            (_, Some(warning)) if stuck => {
                Progress::blocked(Stage::Filtered, *percent, summary, &format!("tor does not get on: {warning}"))
            }
            _ if stuck => Progress { stage: Stage::Connecting, percent: *percent, summary, blocked: None },
            _ => Progress { summary, ..Progress::ready() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What tor says, of control-spec and of a tor that was watched.
    #[test]
    fn what_tor_says_becomes_a_stage() {
        let mut seen = Seen::default();
        let mut after = |event: &str| {
            seen.event(event);
            let progress = seen.progress();
            (progress.stage, progress.percent, progress.blocked.map(|blocked| blocked.what))
        };
        let boot = |rest: &str| format!("STATUS_CLIENT NOTICE BOOTSTRAP {rest}");
        assert_eq!(after(""), (Stage::Connecting, 0, None));
        assert_eq!(
            after(&boot("PROGRESS=50 TAG=loading_descriptors SUMMARY=\"Loading relay descriptors\"")),
            (Stage::Connecting, 50, None)
        );
        let warned = "STATUS_CLIENT WARN BOOTSTRAP PROGRESS=5 TAG=conn SUMMARY=\"Connecting\" WARNING=\"Connection refused\" REASON=CONNECTREFUSED COUNT=5 RECOMMENDATION=warn";
        let (stage, _, what) = after(warned);
        assert_eq!((stage, what.as_deref()), (Stage::Filtered, Some("tor does not get on: Connection refused.")));
        assert_eq!(after("NETWORK_LIVENESS DOWN").0, Stage::Offline);
        assert_eq!(after("NETWORK_LIVENESS UP").0, Stage::Filtered);
        let (stage, _, what) = after("STATUS_GENERAL WARN CLOCK_SKEW SKEW=-7200 MIN_SKEW=-7200 SOURCE=CONSENSUS");
        assert_eq!((stage, what.as_deref()), (Stage::ClockWrong, Some("This machine's clock is 7200 s behind Tor's.")));
        assert_eq!(after(&boot("PROGRESS=100 TAG=done SUMMARY=\"Done\"")).0, Stage::ClockWrong);
        assert_eq!(after("STATUS_CLIENT NOTICE CIRCUIT_ESTABLISHED"), (Stage::Ready, 100, None));
        assert_eq!(after("STATUS_GENERAL WARN CLOCK_SKEW SKEW=90 SOURCE=OR:1.2.3.4:1"), (Stage::Ready, 100, None));
        assert_eq!(after("STATUS_CLIENT NOTICE CIRCUIT_NOT_ESTABLISHED REASON=CLOCK_JUMPED").0, Stage::ClockWrong);
        assert_eq!(after("STATUS_GENERAL WARN CLOCK_SKEW SKEW=x"), (Stage::Connecting, 100, None));
        seen.bootstrap("NOTICE BOOTSTRAP PROGRESS=101 SUMMARY=\"a\\\"b\"");
        assert_eq!((seen.percent, seen.summary.as_str()), (100, "a\"b"));
    }
}
