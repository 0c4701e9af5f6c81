//! The configuration's JSON Schema, made of the example file: it has every key with its meaning and its default, and a test sees to that. Beside it only what
//! a default does not say is written down here: which words, which numbers, which forms.

use super::EXAMPLE;
use serde_json::{Map, Value, json};

/// A name of a peer, a role or a service.
const NAME: &str = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$";

/// What more is known of keys.
fn more(path: &str) -> Option<Value> {
    let between = |least: u64, most: u64| json!({ "minimum": least, "maximum": most });
    let address = r"^(tcp:.+:[0-9]+|unix:.+|systemd:.+)$";
    let any_address = r"^((tcp|udp):.+:[0-9]+|(unix|unixgram|systemd):.+)$";
    let who = format!(r"^(\*|role:{0}|{0})$", NAME.trim_matches(['^', '$']));
    let names = json!({ "items": { "type": "string", "pattern": who } });
    Some(match path {
        "transport.kind" => json!({ "enum": ["arti", "tor", "tcp"] }),
        "transport.port" => json!({ "minimum": 1, "maximum": 65535 }),
        "transport.tcp.peers" => json!({
            "type": "object",
            "propertyNames": { "pattern": NAME },
            "additionalProperties": { "type": "string" },
        }),
        "handshake.pattern" | "peer.pattern" => json!({ "enum": ["kk", "kk1", "xk"] }),
        "handshake.allow" => json!({ "items": { "enum": ["kk", "kk1", "xk"] }, "minItems": 1 }),
        "session.max-age" => between(60, 2_592_000),
        "session.drain" => between(1, 86_400),
        "session.resume-for" => between(0, 86_400),
        "session.idle" => between(0, 2_592_000),
        "transport.dial-timeout"
        | "handshake.timeout"
        | "handshake.knock-window"
        | "session.keepalive"
        | "session.keepalive-timeout"
        | "token.timeout"
        | "token.touch-timeout"
        | "token.pin-timeout"
        | "service.dial-timeout"
        | "service.datagram-idle"
        | "forward.datagram-idle"
        | "daemon.shutdown" => between(1, 3600),
        "daemon.probe" => json!({ "anyOf": [{ "const": 0 }, between(60, 86_400)] }),
        "onion.introduction-points" => between(3, 20),
        "onion.introduction-limit" => json!({
            "properties": {
                "rate": { "type": "integer", "minimum": 1, "maximum": 1_000_000 },
                "burst": { "type": "integer", "minimum": 1, "maximum": 1_000_000 },
            },
            "required": ["rate", "burst"],
            "additionalProperties": false,
        }),
        "onion.streams-per-circuit" => between(1, 65535),
        "onion.vanguards" => json!({ "enum": ["lite", "full"] }),
        "token.keep-pin" => json!({ "enum": ["once", "always", "never-keep"] }),
        "limits.streams-per-peer" => json!({ "minimum": 1, "maximum": 4096 }),
        "service.target" => json!({ "pattern": r"^((tcp|udp):.+:[0-9]+|(unix|unixgram):.+)$" }),
        "service.command" => json!({ "minItems": 1 }),
        "service.allow" | "service.deny" => names,
        "forward.listen" => json!({ "pattern": any_address }),
        "forward.to" => json!({ "pattern": "^[a-z][a-z0-9-]*/[a-z][a-z0-9-]*$" }),
        "socks.listen" | "metrics.listen" => json!({ "pattern": address }),
        "transport.tor.service" => json!({ "enum": ["control", "torrc"] }),
        "transport.tor.listen" => json!({ "pattern": r"^(tcp:.+:[0-9]+|unix:.+)$" }),
        "log.level" => json!({ "enum": ["error", "warn", "info", "debug"] }),
        "daemon.operators" => json!({ "items": { "type": "integer", "minimum": 0, "maximum": 4_294_967_295_u32 } }),
        "service" => json!({ "oneOf": [{ "required": ["target"] }, { "required": ["command"] }] }),
        "forward" => json!({ "required": ["listen", "to"] }),
        _ => return None,
    })
}

/// Tables of tables by names that are free, and lists of tables.
const NAMED: &[&str] = &["service", "peer"];
const LISTED: &[&str] = &["forward"];

/// JSON Schema (draft 2020-12) of the configuration, for editors and for whatever else writes it. What it takes may still be refused: addresses beyond loopback,
/// names that nobody has, limits that do not fit each other.
pub fn schema() -> Value {
    let mut root = table("claviger.toml: the configuration of claviger. Times are whole seconds.");
    let (mut path, mut said, mut is_example): (Vec<String>, Vec<&str>, bool) = (Vec::new(), Vec::new(), false);
    for line in EXAMPLE.lines() {
        let (bare, is_out) = match line.strip_prefix('#') {
            Some(rest) if rest.starts_with('[') || (!rest.starts_with(' ') && rest.contains(" = ")) => (rest, true),
            Some(rest) => {
                said.push(rest.trim());
                continue;
            }
            None => (line, false),
        };
        if bare.is_empty() {
            said.clear();
        } else if let Some(header) = bare.strip_prefix('[') {
            path = header.trim_matches(['[', ']']).split('.').map(str::to_owned).collect();
            path.truncate(if NAMED.contains(&path[0].as_str()) { 1 } else { path.len() });
            is_example = is_out;
            if let Some(entry) = at(&mut root, &path)
                && !said.is_empty()
            {
                // The first one of several says what they are.
                entry.entry("description").or_insert_with(|| said.join(" ").into());
            }
            said.clear();
        } else if let Ok(read) = toml::from_str::<Map<String, Value>>(bare) {
            for (key, value) in read {
                let default = (!is_out && !is_example).then(|| value.clone());
                let place = path.iter().cloned().chain([key.clone()]).collect::<Vec<_>>().join(".");
                let property = property(&place, &said.join(" "), &value, default);
                if let Some(properties) =
                    at(&mut root, &path).and_then(|table| table.get_mut("properties")?.as_object_mut())
                {
                    properties.entry(key).or_insert(property);
                }
            }
            said.clear();
        }
    }
    root.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    root.insert("title".into(), "claviger".into());
    root.into()
}

fn table(description: &str) -> Map<String, Value> {
    let mut table = Map::new();
    table.insert("type".into(), "object".into());
    if !description.is_empty() {
        table.insert("description".into(), description.into());
    }
    table.insert("properties".into(), json!({}));
    table.insert("additionalProperties".into(), false.into());
    table
}

/// The schema of the table at a path, made if it is not there yet.
fn at<'a>(root: &'a mut Map<String, Value>, path: &[String]) -> Option<&'a mut Map<String, Value>> {
    let mut here = root;
    for name in path {
        let (new, inner) = if NAMED.contains(&name.as_str()) {
            let names = json!({ "pattern": NAME });
            let tables = json!({ "type": "object", "propertyNames": names, "additionalProperties": grown(name) });
            (tables, Some("additionalProperties"))
        } else if LISTED.contains(&name.as_str()) {
            (json!({ "type": "array", "items": grown(name) }), Some("items"))
        } else {
            (grown(name), None)
        };
        let entry = here.get_mut("properties")?.as_object_mut()?.entry(name).or_insert(new);
        let table = match inner {
            Some(inner) => entry.get_mut(inner)?,
            None => entry,
        };
        here = table.as_object_mut()?;
    }
    Some(here)
}

fn grown(name: &str) -> Value {
    let mut table = table("");
    if let Some(Value::Object(more)) = more(name) {
        table.extend(more);
    }
    table.into()
}

fn property(path: &str, description: &str, value: &Value, default: Option<Value>) -> Value {
    let form = match value {
        Value::Bool(_) => json!({ "type": "boolean" }),
        Value::Number(_) => json!({ "type": "integer", "minimum": 0, "maximum": 1_000_000 }),
        Value::Array(_) => json!({ "type": "array", "items": { "type": "string" } }),
        Value::Object(_) => json!({ "type": "object" }),
        _ => json!({ "type": "string" }),
    };
    let mut property = Map::new();
    let parts = [Some(form), more(path)].into_iter().flatten();
    property.extend(parts.filter_map(|part| if let Value::Object(part) = part { Some(part) } else { None }).flatten());
    if !description.is_empty() {
        property.insert("description".into(), description.into());
    }
    property.extend(default.map(|default| ("default".to_owned(), default)));
    property.into()
}
