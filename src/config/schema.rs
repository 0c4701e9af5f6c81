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
        "onion.introduction-points" => json!({ "minimum": 3, "maximum": 20 }),
        "onion.introduction-limit" => {
            let count = json!({ "type": "integer", "minimum": 1, "maximum": 1_000_000 });
            json!({
                "properties": { "rate": count, "burst": count },
                "required": ["rate", "burst"],
                "additionalProperties": false,
            })
        }
        "onion.streams-per-circuit" => json!({ "minimum": 1, "maximum": 65535 }),
        "onion.vanguards" => json!({ "enum": ["lite", "full"] }),
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
            let entry = at(&mut root, &path);
            // The first one of several says what they are.
            if !said.is_empty() && !entry.contains_key("description") {
                entry.insert("description".into(), said.join(" ").into());
            }
            said.clear();
        } else if let Ok(read) = toml::from_str::<Map<String, Value>>(bare) {
            for (key, value) in read {
                let default = (!is_out && !is_example).then(|| value.clone());
                let place = path.iter().cloned().chain([key.clone()]).collect::<Vec<_>>().join(".");
                let property = property(&place, &said.join(" "), &value, default);
                let Some(Value::Object(properties)) = at(&mut root, &path).get_mut("properties") else { continue };
                properties.entry(key).or_insert(property);
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
fn at<'a>(root: &'a mut Map<String, Value>, path: &[String]) -> &'a mut Map<String, Value> {
    let mut here = root;
    for name in path {
        let wrapped = match name.as_str() {
            named if NAMED.contains(&named) => Some(json!({
                "type": "object",
                "propertyNames": { "pattern": NAME },
                "additionalProperties": grown(name),
            })),
            listed if LISTED.contains(&listed) => Some(json!({ "type": "array", "items": grown(name) })),
            _ => None,
        };
        let inner = if NAMED.contains(&name.as_str()) {
            Some("additionalProperties")
        } else {
            wrapped.as_ref().map(|_| "items")
        };
        let properties = object(here, "properties");
        let entry = properties.entry(name.clone()).or_insert_with(|| wrapped.unwrap_or_else(|| grown(name)));
        here = match (entry, inner) {
            (Value::Object(entry), Some(inner)) => object(entry, inner),
            (Value::Object(entry), None) => entry,
            (entry, _) => {
                *entry = grown(name);
                as_object(entry)
            }
        };
    }
    here
}

fn grown(name: &str) -> Value {
    let mut table = table("");
    if let Some(Value::Object(more)) = more(name) {
        table.extend(more);
    }
    table.into()
}

fn object<'a>(of: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    as_object(of.entry(key).or_insert_with(|| json!({})))
}

fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(object) => object,
        // It was made one above.
        _ => unreachable!("an object"),
    }
}

fn property(path: &str, description: &str, value: &Value, default: Option<Value>) -> Value {
    let mut property = match value {
        Value::Bool(_) => json!({ "type": "boolean" }),
        Value::Number(_) => json!({ "type": "integer", "minimum": 0, "maximum": 1_000_000 }),
        Value::Array(_) => json!({ "type": "array", "items": { "type": "string" } }),
        Value::Object(_) => json!({ "type": "object" }),
        _ => json!({ "type": "string" }),
    };
    let described = as_object(&mut property);
    if !description.is_empty() {
        described.insert("description".into(), description.into());
    }
    described.extend(default.map(|default| ("default".to_owned(), default)));
    if let Some(Value::Object(more)) = more(path) {
        described.extend(more);
    }
    property
}
