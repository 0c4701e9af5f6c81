//! What is served.

use super::super::shared::Shared;
use super::super::status::{OnionState, Status, now};
use super::super::{Phase, forwards, services};
use super::Labels;
use crate::token::TokenState;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

const STATES: [TokenState; 8] = [
    TokenState::Absent,
    TokenState::Ready,
    TokenState::Locked,
    TokenState::WaitingForTouch,
    TokenState::WaitingForPin,
    TokenState::BusyElsewhere,
    TokenState::Blocked,
    TokenState::Failed,
];

const RELATIONS: [&str; 5] = ["needed", "known", "operational", "degraded", "interrupted"];

const PHASES: [(Phase, &str); 4] = [
    (Phase::WaitingForToken, "waiting-for-token"),
    (Phase::Starting, "starting"),
    (Phase::Running, "running"),
    (Phase::Stopping, "stopping"),
];

/// Numbers of a moment, by name.
struct Page(Registry);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: i64) {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }

    fn count(&mut self, name: &str, help: &str, value: u64) {
        self.0.register(name, help, ConstCounter::new(value));
    }

    fn gauges(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, i64)>) {
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, help, family);
    }

    fn counts(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in values {
            // Two of the same name are one line.
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    /// One of several, as 1 of it and 0 of the others.
    fn one_of(&mut self, name: &str, help: &str, label: &'static str, all: &[&str], is: &str) {
        let values = all.iter().map(|value| (vec![(label, (*value).to_owned())], i64::from(*value == is)));
        self.gauges(name, help, values);
    }
}

fn signed(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

fn labelled(label: &'static str, value: &str) -> Labels {
    vec![(label, value.to_owned())]
}

/// All there is to tell now.
pub(super) fn page(shared: &Shared) -> String {
    let status = Status::of(shared);
    let mut page = Page(Registry::with_prefix("claviger"));
    daemon(&mut page, shared, &status);
    token(&mut page, shared, &status);
    connections(&mut page, shared, &status);
    streams(&mut page, shared);
    process(&mut page);
    let mut text = String::new();
    // Nothing is written but to memory.
    let _ = encode(&mut text, &page.0);
    text
}

fn daemon(page: &mut Page, shared: &Shared, status: &Status) {
    let build = vec![
        ("version", status.version.clone()),
        ("machine", status.machine.clone()),
        ("transport", status.transport.kind.clone()),
    ];
    page.gauges("build_info", "The release that runs, on which machine, over which transport", [(build, 1)]);
    let phase = PHASES.iter().find(|(phase, _)| *phase == status.phase).map_or("", |(_, name)| name);
    page.one_of("phase", "What the daemon is at", "phase", &PHASES.map(|(_, name)| name), phase);
    page.gauge("well", "Whether the daemon runs and nothing is wrong", status.well.into());
    page.gauge("troubles", "Things that are wrong, as claviger status lists them", signed(status.troubles.len()));
    page.gauge("start_time_seconds", "When the daemon was started, since 1970", signed(status.since));
    page.gauge(
        "configuration_refused",
        "Whether the newest configuration was refused",
        status.configuration.refused.is_some().into(),
    );
    page.gauge(
        "store_trouble",
        "Whether changes of the store can not be taken over",
        status.store.trouble.is_some().into(),
    );
    let log = shared.connections.report();
    page.gauge("log_trouble", "Whether the log of connections can not be written", log.trouble.is_some().into());
    page.count("log_dropped", "Entries of the log of connections that found no room", log.dropped);
}

fn token(page: &mut Page, shared: &Shared, status: &Status) {
    let Some(token) = &status.token else { return };
    page.one_of("token_state", "The token's state", "state", &STATES.map(TokenState::as_str), &token.state);
    page.count("token_operations", "Operations that the token was asked for", token.operations);
    let waiting = shared.token().map_or(0, crate::token::TokenHandle::waiting);
    page.gauge("token_queue", "Operations that wait for the token", signed(waiting));
    page.0.register(
        "token_wait_seconds",
        "How long a handshake waited for the token, its turn included",
        shared.metrics.token.clone(),
    );
}

fn connections(page: &mut Page, shared: &Shared, status: &Status) {
    let books = &shared.metrics;
    page.0.register("handshakes", "Attempts of peers and to peers, by what became of them", books.handshakes.clone());
    page.0.register("handshake_seconds", "How long handshakes took that were established", books.handshake.clone());
    page.0.register("dial_seconds", "How long dialling took for sessions that were established", books.dial.clone());
    page.count("strangers", "Callers who were nobody's peer", status.strangers.count);
    let sessions = status.peers.iter().map(|peer| (labelled("peer", &peer.name), signed(peer.sessions.len())));
    page.gauges("sessions", "Sessions with a peer", sessions);
    let relations = status.peers.iter().flat_map(|peer| {
        let is = serde_json::to_value(peer.relation).ok();
        let is = is.and_then(|is| is.as_str().map(str::to_owned)).unwrap_or_default();
        RELATIONS.map(move |relation| {
            let labels = vec![("peer", peer.name.clone()), ("relation", relation.to_owned())];
            (labels, i64::from(relation == is))
        })
    });
    page.gauges("peer_relation", "How it stands with a peer", relations);
    let last = status.peers.iter().filter_map(|peer| {
        let ago = now().saturating_sub(peer.last_session?);
        Some((labelled("peer", &peer.name), signed(ago)))
    });
    page.gauges("peer_last_session_age_seconds", "How long ago the last session with a peer began", last);
    if let Some(onion) = &status.onion {
        let reachable = onion.state == OnionState::Reachable;
        page.gauge(
            "onion_reachable",
            "Whether the transport believes that others reach this machine",
            reachable.into(),
        );
        if let Some(reached) = onion.probe.is_reached() {
            page.gauge("onion_probe_success", "Whether the last probe from outside arrived", reached.into());
        }
        if let Some(success) = &onion.probe.success {
            let ago = now().saturating_sub(success.time);
            page.gauge("onion_probe_age_seconds", "How long ago a probe from outside last arrived", signed(ago));
        }
    }
    if let Some(progress) = &status.transport.progress {
        page.gauge("bootstrap_percent", "How far the transport's bootstrap is", progress.percent.into());
    }
}

fn streams(page: &mut Page, shared: &Shared) {
    let services = services::reports(shared);
    let of = |number: fn(&services::ServiceReport) -> u64| {
        let values = services.iter().map(move |report| (labelled("service", &report.name), number(report)));
        values.collect::<Vec<_>>()
    };
    let open = services.iter().map(|report| (labelled("service", &report.name), signed(report.open)));
    page.gauges("service_streams", "Streams that peers have open to a service", open);
    page.counts("service_streams_opened", "Streams that were let in", of(|report| report.total));
    page.counts("service_streams_failed", "Streams whose target failed", of(|report| report.failed));
    let refused = services.iter().flat_map(|report| {
        [("not-allowed", report.not_allowed), ("limit", report.limit)]
            .map(|(reason, count)| (vec![("service", report.name.clone()), ("reason", reason.to_owned())], count))
    });
    let unknown = vec![("service", String::new()), ("reason", "no-such-service".to_owned())];
    let refused = refused.chain([(unknown, services::unknown(shared))]);
    page.counts("service_streams_refused", "Streams that were refused to peers", refused);
    page.counts("service_received_bytes", "Bytes from peers to a service", of(|report| report.received));
    page.counts("service_sent_bytes", "Bytes from a service to peers", of(|report| report.sent));

    let forwards = forwards::reports(shared);
    let of = |number: fn(&forwards::ForwardReport) -> u64| {
        forwards.iter().map(move |report| (labelled("forward", &report.listen), number(report))).collect::<Vec<_>>()
    };
    let open = forwards.iter().map(|report| (labelled("forward", &report.listen), signed(report.open)));
    page.gauges("forward_streams", "Streams that a local socket has open to peers", open);
    page.counts("forward_streams_opened", "Streams that were opened", of(|report| report.opened));
    let failed = of(|report| report.failures.values().fold(0, |sum: u64, count| sum.saturating_add(*count)));
    page.counts("forward_streams_failed", "Connections that were cut", failed);
    page.counts("forward_received_bytes", "Bytes from peers to a local socket", of(|report| report.received));
    page.counts("forward_sent_bytes", "Bytes from a local socket to peers", of(|report| report.sent));
}

/// What a sandbox hides is left out.
fn process(page: &mut Page) {
    let files = std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?;
        value.parse::<i64>().ok()
    };
    let numbers = [
        ("process_open_fds", "Files that are open", files.map(signed)),
        ("process_max_fds", "Files that may be open", limit.map(signed)),
        ("process_threads", "Threads", line("Threads:")),
        ("process_resident_memory_bytes", "Memory in use", line("VmRSS:").map(|kib| kib.saturating_mul(1024))),
    ];
    for (name, help, value) in numbers {
        if let Some(value) = value {
            page.gauge(name, help, value);
        }
    }
}
