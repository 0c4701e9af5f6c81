//! Numbers for Prometheus, in the text format of OpenMetrics 1.0, at `/metrics`.
//!
//! What is counted as it happens is in [`Books`]; the rest is taken from the daemon's [status](super::status) when somebody asks. Labels are names of services and
//! peers of the store, and words of this program: nobody outside can make more of them.

mod http;
mod page;

pub(super) use http::start;

use crate::endpoint::Report;
use crate::error::ErrorKind;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// Names and values.
type Labels = Vec<(&'static str, String)>;

/// Upper bounds, in seconds: from a software key to somebody who has to be found to touch a token.
const SECONDS: [f64; 12] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// What was counted of attempts to connect.
pub(super) struct Books {
    handshakes: Family<Labels, Counter>,
    dial: Histogram,
    handshake: Family<Labels, Histogram>,
    token: Histogram,
}

impl Default for Books {
    fn default() -> Self {
        Self {
            handshakes: Family::default(),
            dial: seconds(),
            handshake: Family::new_with_constructor(seconds),
            token: seconds(),
        }
    }
}

impl Books {
    /// An attempt to connect is over.
    pub(super) fn attempt(&self, report: &Report) {
        // Those are strangers, and counted as such.
        if report.peer.is_none() {
            return;
        }
        let direction = report.direction.as_str();
        let outcome = if report.failure.is_some() { "failed" } else { "established" };
        let labels = vec![
            ("direction", direction.to_owned()),
            ("outcome", outcome.to_owned()),
            ("reason", report.failure.map_or("", ErrorKind::as_str).to_owned()),
            ("pattern", report.pattern.map_or("", |pattern| pattern.noise_name()).to_owned()),
            ("resumed", report.resumed.to_string()),
        ];
        self.handshakes.get_or_create(&labels).inc();
        if report.failure.is_none() {
            let labels = vec![("direction", direction.to_owned()), ("resumed", report.resumed.to_string())];
            self.handshake.get_or_create(&labels).observe(report.handshake.as_secs_f64());
            if !report.dial.is_zero() {
                self.dial.observe(report.dial.as_secs_f64());
            }
        }
        if report.token_operations > 0 {
            self.token.observe(report.token.as_secs_f64());
        }
    }
}
