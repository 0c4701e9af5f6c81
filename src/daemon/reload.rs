//! Taking over another configuration: all of it, or nothing.

use super::forwards;
use super::shared::Shared;
use crate::config::{Config, Service};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::Who;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

/// The keys of a table that differ, as they are written in the file.
macro_rules! differing {
    ($found:ident, $table:literal, $old:expr, $new:expr, [$($field:ident),*]) => {
        if $old != $new {
            let before = $found.len();
            $(if $old.$field != $new.$field {
                $found.push(format!("{}.{}", $table, stringify!($field).replace('_', "-")));
            })*
            // Something that this list does not know yet.
            if $found.len() == before {
                $found.push(format!("[{}]", $table));
            }
        }
    };
}

/// Keys that only a start can change, and that differ.
fn fixed(old: &Config, new: &Config) -> Vec<String> {
    let mut found = Vec::new();
    differing!(found, "transport", old.transport, new.transport, [kind, port, dial_timeout, arti, tor, tcp]);
    differing!(found, "handshake", old.handshake, new.handshake, [pattern, allow, timeout, knock_window]);
    differing!(
        found,
        "session",
        old.session,
        new.session,
        [max_age, drain, resume_for, keepalive, keepalive_timeout, idle]
    );
    differing!(
        found,
        "token",
        old.token,
        new.token,
        [timeout, touch_timeout, pin_timeout, keep_pin, pin_file, pinentry]
    );
    differing!(found, "store", old.store, new.store, [dir, allow_unsealed, keys]);
    differing!(
        found,
        "onion",
        old.onion,
        new.onion,
        [restricted, introduction_points, introduction_limit, proof_of_work, streams_per_circuit, vanguards]
    );
    differing!(found, "metrics", old.metrics, new.metrics, [listen, unsafe_listen]);
    differing!(
        found,
        "sandbox",
        old.sandbox,
        new.sandbox,
        [landlock, seccomp, lock_memory, require, read, write, connect]
    );
    let limits = [
        ("limits.pending", old.limits.pending == new.limits.pending),
        ("limits.per-peer", old.limits.per_peer == new.limits.per_peer),
        ("daemon.control", old.daemon.control == new.daemon.control),
        ("log.json", old.log.json == new.log.json),
        ("log.connections", old.log.connections == new.log.connections),
        // Nothing is listened on without a service.
        ("service (the first one)", new.service.is_empty() || !old.service.is_empty()),
    ];
    found.extend(limits.iter().filter(|(_, same)| !same).map(|(key, _)| (*key).to_owned()));
    found
}

/// What differs of what can change, a sentence each; without forwards and the front for SOCKS5, which tell themselves.
fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut told = Vec::new();
    each(&mut told, "Service", &old.service, &new.service, is_same_service);
    each(&mut told, "What is wanted of the peer", &old.peer, &new.peer, |old, new| old == new);
    if old.policy != new.policy {
        let what = if new.policy.plan { "lets" } else { "no longer lets" };
        told.push(format!("The plan {what} peers open services."));
    }
    if old.limits != new.limits {
        told.push("The limits of sessions and streams have changed, for sessions that begin from now on.".into());
    }
    if old.daemon.operators != new.daemon.operators {
        told.push("The users who may ask for the status are others.".into());
    }
    if old.daemon.probe != new.daemon.probe || old.daemon.shutdown != new.daemon.shutdown {
        told.push("The daemon's times have changed.".into());
    }
    if old.log.level != new.log.level {
        told.push("The level of the log has changed.".into());
    }
    told
}

/// What was added to a table by names, taken out, or changed.
fn each<K: Ord + Display, V>(
    told: &mut Vec<String>,
    what: &str,
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    is_same: impl Fn(&V, &V) -> bool,
) {
    for (name, value) in new {
        match old.get(name) {
            None => told.push(format!("{what} `{name}` is new.")),
            Some(before) if !is_same(before, value) => told.push(format!("{what} `{name}` has changed.")),
            Some(_) => {}
        }
    }
    told.extend(old.keys().filter(|name| !new.contains_key(name)).map(|name| format!("{what} `{name}` is gone.")));
}

/// Wherever they stand in their files.
fn is_same_service(old: &Service, new: &Service) -> bool {
    let names = |service: &Service| -> [Vec<Who>; 2] {
        [&service.allow, &service.deny].map(|named| named.iter().map(|named| named.who.clone()).collect())
    };
    let bare = |service: &Service| Service { allow: Vec::new(), deny: Vec::new(), ..service.clone() };
    names(old) == names(new) && bare(old) == bare(new)
}

/// First everything that can fail, then everything else.
///
/// # Errors
/// [`ErrorKind::RestartNeeded`]; those of the sockets of forwards.
pub(super) async fn take_over(shared: &Arc<Shared>, new: Config) -> Result<Vec<String>> {
    let old = shared.config();
    let fixed = fixed(&old, &new);
    if !fixed.is_empty() {
        let keys = fixed.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        return Err(Error::new(
            ErrorKind::RestartNeeded,
            format!("Nothing was taken over: the file also changes {keys}, and that needs a restart."),
            "Restart the daemon, for example with `systemctl restart claviger`, or undo that part of the file.",
        ));
    }
    shared.confinement().map_or(Ok(()), |confinement| confinement.admits(&new))?;
    let mut told = changes(&old, &new);
    // Before the store is open nothing listens, and the start opens what is configured then.
    let prepared = shared.endpoint().map(|_| forwards::prepare(shared, &new)).transpose()?;
    shared.set_operators(&new)?;
    shared.set_config(new);
    let new = shared.config();
    if let Some(endpoint) = shared.endpoint() {
        endpoint.set_limits(&new.limits);
    }
    told.extend(prepared.into_iter().flat_map(|prepared| forwards::commit(shared, prepared)));
    if old.log.level != new.log.level {
        shared.log_at(new.log.level);
    }
    shared.relations.settle(shared);
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("/etc/claviger/claviger.toml")).unwrap()
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let old = config("");
        for (text, keys) in [
            ("", vec![]),
            ("[transport]\nport = 80\nkind = \"tor\"", vec!["transport.kind", "transport.port"]),
            ("[transport.tor]\nsocks = \"127.0.0.1:1\"", vec!["transport.tor"]),
            ("[handshake]\npattern = \"xk\"\n[session]\nidle = 0", vec!["handshake.pattern", "session.idle"]),
            ("[store]\nallow-unsealed = true", vec!["store.allow-unsealed"]),
            ("[limits]\npending = 1\nsessions = 5", vec!["limits.pending"]),
            ("[sandbox]\nrequire = true", vec!["sandbox.require"]),
            ("[log]\nlevel = \"debug\"\njson = true", vec!["log.json"]),
            ("[service.a]\ntarget = \"unix:a\"", vec!["service (the first one)"]),
        ] {
            assert_eq!(fixed(&old, &config(text)), keys, "{text}");
        }
    }

    #[test]
    fn what_has_changed_is_told() {
        let service = |more: &str| format!("[service.a]\ntarget = \"unix:a\"\n{more}\n");
        let old = config(&format!("{}[peer.x]\nkeep = true", service("allow = [\"x\"]")));
        let told = |text: &str| changes(&old, &config(text));
        // The same in other places of the file.
        let moved = format!("# A note.\n\n{}[peer.x]\nkeep = true\n", service("allow = [\n  \"x\"]"));
        assert!(told(&moved).is_empty());
        assert_eq!(
            told(&format!("{}[service.b]\ntarget = \"unix:b\"\n", service("allow = [\"y\"]"))),
            ["Service `a` has changed.", "Service `b` is new.", "What is wanted of the peer `x` is gone."]
        );
        assert_eq!(
            told("[peer.x]\nkeep = true\n[policy]\nplan = false\n"),
            ["Service `a` is gone.", "The plan no longer lets peers open services."]
        );
    }
}
