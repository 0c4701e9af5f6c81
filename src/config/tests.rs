use super::*;
use crate::error::spelling;

// The example file: every key with its default; keys without a default are commented out without a space after `#`.

fn parse(text: &str) -> Result<Config> {
    Config::parse(text, Path::new("/etc/claviger/claviger.toml"))
}

fn refused(text: &str) -> (String, String) {
    let error = parse(text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
    (error.to_string(), error.hint().to_owned())
}

/// The example with its optional keys in force.
fn complete() -> String {
    let option = |line: &str| {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with('[') || !rest.starts_with(' ') && rest.contains(" = "))
    };
    EXAMPLE.lines().map(|line| if option(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_the_default() {
    assert_eq!(parse(EXAMPLE).unwrap(), Config::default());
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn the_example_is_complete() {
    let text = complete();
    let config = parse(&text).unwrap();
    let Transport { arti, tor, .. } = &config.transport;
    assert_eq!(arti.config.as_deref(), Some(Path::new("/etc/claviger/arti.toml")));
    assert_eq!(tor.cookie_file, Path::new("/run/tor/control.authcookie"));
    assert!(tor.password_file.is_some() && arti.state.is_some());
    assert_eq!(config.token.pin_file.as_deref(), Some(Path::new("/etc/claviger/token.pin")));

    // serde names every key of a table when it meets one that is not there.
    for table in [
        "",
        "transport",
        "transport.arti",
        "transport.tor",
        "transport.tcp",
        "handshake",
        "session",
        "token",
        "limits",
        "store",
        "onion",
        "service.cosign",
        "forward",
        "socks",
        "peer.cosigner",
        "policy",
        "daemon",
        "log",
        "metrics",
        "sandbox",
    ] {
        let probe = match table {
            "" => "zzz = 1".into(),
            "forward" => "[[forward]]\nzzz = 1".into(),
            _ => format!("[{table}]\nzzz = 1"),
        };
        let message = toml::from_str::<Config>(&probe).unwrap_err().message().to_owned();
        let (_, keys) = spelling::unknown(&message).unwrap_or_else(|| panic!("{message}"));
        assert!(!keys.is_empty());
        let written: toml::Table = text.parse().unwrap();
        let written = table.split('.').filter(|name| !name.is_empty()).fold(&written, |t, name| match &t[name] {
            toml::Value::Array(tables) => tables[0].as_table().unwrap(),
            table => table.as_table().unwrap(),
        });
        // A service has one or the other.
        for key in keys.into_iter().filter(|key| (table, *key) != ("service.cosign", "command")) {
            assert!(written.contains_key(key), "[{table}] {key} is not in docs/claviger.toml");
        }
    }
}

#[test]
fn a_misspelled_key_is_named_with_its_place_and_its_neighbour() {
    let (what, hint) = refused("[transport]\nkind = \"tor\"\n  dial_timeout = 5\n");
    assert!(what.starts_with("/etc/claviger/claviger.toml, line 3, column 3: unknown field `dial_timeout`"), "{what}");
    assert_eq!(hint, "Did you mean `dial-timeout`?");
    let (what, hint) = refused("[transport]\nkind = \"artie\"");
    assert!(what.contains("line 2, column 8: unknown variant `artie`"), "{what}");
    assert_eq!(hint, "Did you mean `arti`?");
    let (_, hint) = refused("[limits]\ncolour = 1");
    assert!(hint.contains("docs/claviger.toml"), "{hint}");
    assert_eq!(refused("[handshakes]").1, "Did you mean `handshake`?");
}

#[test]
fn wrong_values_are_refused_where_they_stand() {
    for (text, place) in [
        ("[transport]\nport = 0", "line 2, column 8"),
        ("[transport]\nport = 65536", "line 2, column 8"),
        ("[transport]\ndial-timeout = 0", "line 2, column 16"),
        ("[transport]\ndial-timeout = 1.5", "line 2, column 16"),
        ("[transport]\ndial-timeout = -1", "line 2, column 16"),
        ("[transport]\ndial-timeout = 3601", "line 2, column 16"),
        ("[transport.tor]\nsocks = \"192.0.2.1:9050\"", "line 2, column 9"),
        ("[transport.tor]\nsocks = \"localhost:9050\"", "line 2, column 9"),
        ("[transport.tor]\ncontrol = \"10.0.0.1:9051\"", "line 2, column 11"),
        ("[transport.tor]\ncontrol = \"unix:\"", "line 2, column 11"),
        ("[transport.tor]\nlisten = \"tcp:10.0.0.1:80\"", "line 2, column 10"),
        ("[transport.tor]\nlisten = \"udp:127.0.0.1:80\"", "line 2, column 10"),
        ("[transport.tor]\nservice = \"torrc\"", "no `listen`"),
        ("[onion]\nintroduction-points = 2", "line 2, column 23"),
        ("[onion]\nintroduction-points = 21", "line 2, column 23"),
        ("[onion]\nstreams-per-circuit = 0", "line 2, column 23"),
        ("[onion]\nintroduction-limit = { rate = 0, burst = 1 }", "line 2, column 31"),
        ("[onion]\nintroduction-limit = { rate = 1 }", "missing field `burst`"),
        ("[onion]\nvanguards = \"none\"", "line 2, column 13"),
        ("[transport.tcp]\npeers = { \"Bad Name\" = \"127.0.0.1:1\" }", "line 2, column 9"),
        ("[transport.tcp]\nlisten = \"example.com:1\"", "line 2, column 10"),
        ("[handshake]\nallow = []", "line 2, column 9"),
        ("[handshake]\nallow = [\"nn\"]", "line 2, column 10"),
        ("[limits]\npending = 0", "line 2, column 11"),
        ("[limits]\nstreams-per-peer = 4097", "line 2, column 20"),
        ("[limits]\nbuffer-per-peer = 63", "claviger.toml has `buffer-per-peer = 63`"),
        ("[session]\nmax-age = 59", "line 2, column 11"),
        ("[session]\nresume-for = 86401", "line 2, column 14"),
        ("[session]\nidle = -1", "line 2, column 8"),
        ("[token]\ntimeout = \"2s\"", "line 2, column 11"),
        ("[token]\nkeep-pin = \"never\"", "line 2, column 12"),
        ("[token]\npinentry = \"bin/pinentry\"", "line 2, column 12"),
        ("[token]\npinentry = \"\"", "line 2, column 12"),
        ("[transport\nport = 1", "line 1"),
        ("token = 1", "line 1"),
    ] {
        let (what, _) = refused(text);
        assert!(what.contains(place), "{text}: {what}");
    }
}

#[test]
fn relative_paths_begin_at_the_file() {
    let text =
        "[transport.arti]\nstate = \"x/arti\"\n[transport.tor]\ncontrol = \"unix:run/control\"\ncookie-file = \"/c\"";
    let transport = parse(text).unwrap().transport;
    assert_eq!(transport.arti.state.as_deref(), Some(Path::new("/etc/claviger/x/arti")));
    assert_eq!(transport.tor.control, ControlAddress::Unix("/etc/claviger/run/control".into()));
    assert_eq!(transport.tor.cookie_file, Path::new("/c"));
    let text = "[transport.tor]\ncontrol = \"none\"\nservice = \"torrc\"\nlisten = \"unix:run/onion.sock\"";
    let tor = parse(text).unwrap().transport.tor;
    assert_eq!(tor.control, ControlAddress::None);
    assert_eq!(tor.listen, Some(Local::Unix("/etc/claviger/run/onion.sock".into())));
}

#[test]
fn files_that_can_not_be_configurations() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    assert!(Config::load(&path).unwrap_err().to_string().contains("can not be read"));
    std::fs::write(&path, [0xff; 4]).unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("is not UTF-8"));
    std::fs::write(&path, vec![b'\n'; 256 * 1024 + 1]).unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("is larger than 256 KiB"));
    std::fs::write(&path, "[transport]\nport = 80\n").unwrap();
    assert_eq!(Config::load(&path).unwrap().transport.port, 80);
}

#[test]
fn keys_are_fingerprints() {
    let good = "[store]\nkeys = [\"0f67 a461 37b5 b217 1f49 2a40 3473 959b\", \"abandon abandon abandon abandon abandon abandon abandon about\"]";
    assert_eq!(parse(good).unwrap().store.keys.len(), 2);
    let (what, _) = refused("[store]\nkeys = [\"0f67\"]");
    assert!(what.contains("line 2") && what.contains("\"0f67\" is not a fingerprint"), "{what}");
}

#[test]
fn services_forwards_and_the_rules_about_them() {
    let text = "[service.ssh]\ntarget = \"tcp:127.0.0.1:22\"\nallow = [\n  \"alice\",\n  \"role:wallet\",\n]\ndeny = [\"bob\"]\n[service.dns]\ntarget = \"udp:[::1]:53\"\n\
        [service.up]\ncommand = [\"/usr/bin/uptime\"]\n[[forward]]\nlisten = \"unix:run/ssh.sock\"\nto = \"alice/ssh\"\n[socks]\nlisten = \"systemd:front\"";
    let config = parse(text).unwrap();
    let rules = config.rules();
    assert_eq!(rules.iter().map(|rule| rule.place.line).collect::<Vec<_>>(), [4, 5, 7]);
    assert_eq!(config.forward[0].listen, Local::Unix("/etc/claviger/run/ssh.sock".into()));
    assert_eq!(config.service[&"up".parse().unwrap()].backend, Backend::Command(vec!["/usr/bin/uptime".into()]));
    assert_eq!(config.socks.listen, Some(Local::Systemd("front".into())));

    for (text, why) in [
        ("[service.ssh]", "needs a `target` or a `command`"),
        ("[service.ssh]\ntarget = \"tcp:192.168.0.1:22\"", "not on loopback"),
        ("[service.ssh]\ntarget = \"tcp:localhost:22\"", "line 2, column 10"),
        ("[service.ssh]\ntarget = \"unix:\"", "says no address"),
        ("[service.ssh]\ntarget = \"systemd:x\"", "no socket of the service manager"),
        ("[service.ssh]\ncommand = [\"uptime\"]", "absolute path"),
        ("[service.ssh]\ncommand = []", "absolute path"),
        ("[service.ssh]\ntarget = \"tcp:127.0.0.1:22\"\ncommand = [\"/bin/x\"]", "not both"),
        ("[service.ssh]\ntarget = \"udp:127.0.0.1:22\"\nproxy-protocol = true", "for targets of tcp and unix"),
        ("[service.ssh]\ntarget = \"tcp:127.0.0.1:22\"\nallow = [\"Alice\"]", "line 3, column 9"),
        ("[service.SSH]\ntarget = \"tcp:127.0.0.1:22\"", "`SSH` is not a name"),
        ("[[forward]]\nlisten = \"tcp:0.0.0.0:22\"\nto = \"a/b\"", "unsafe-listen"),
        ("[[forward]]\nlisten = \"tcp:127.0.0.1:22\"\nto = \"a\"", "line 3, column 6"),
        ("[[forward]]\nlisten = \"tcp:127.0.0.1:22\"", "missing field `to`"),
        ("[socks]\nlisten = \"udp:127.0.0.1:1080\"", "listens for connections"),
        ("[metrics]\nlisten = \"tcp:10.0.0.1:80\"", "not on loopback"),
        ("[daemon]\nprobe = 59", "line 2, column 9"),
    ] {
        let (what, _) = refused(text);
        assert!(what.contains(why), "{text}: {what}");
    }
    assert!(parse("[[forward]]\nlisten = \"tcp:0.0.0.0:22\"\nto = \"a/b\"\nunsafe-listen = true").is_ok());
    assert_eq!(refused("[service.ssh]\ntargets = 1").1, "Did you mean `target`?");
}

#[test]
fn every_problem_is_told_with_its_place() {
    let text = "[transport]\nport = 0\nknd = \"tor\"\n[handshake]\nallow = [\n  \"kk\",\n  \"nn\",\n]\n[limits]\npending = 1\nstreams-per-peer = 400\nbuffer-per-peer = 1\n[service.a]\n";
    let found = Config::problems(text, Path::new("claviger.toml"));
    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 5, "{told:#?}");
    for place in ["line 2, column 8", "line 3, column 1", "line 7, column 3", "needs a `target`"] {
        assert!(told.iter().any(|what| what.contains(place)), "{place}: {told:#?}");
    }
    let syntax = Config::problems("[transport\nport = 0", Path::new("claviger.toml"));
    assert_eq!(syntax.len(), 1);
    let buffer = Config::problems("[limits]\nbuffer-per-peer = 1\npendin = 3", Path::new("claviger.toml"));
    assert_eq!(buffer.len(), 2);
    assert!(Config::problems(EXAMPLE, Path::new("claviger.toml")).is_empty());
}

/// The schema knows every key that the file may have.
#[test]
fn the_schema_has_every_key() {
    let schema = schema();
    let complete: toml::Table = complete().parse().unwrap();
    fn compare(path: &str, written: &toml::Table, schema: &serde_json::Value) {
        for (key, value) in written {
            let place = format!("{path}.{key}");
            let known = &schema["properties"][key];
            assert!(known.is_object(), "{place}");
            match (value, key.as_str()) {
                (toml::Value::Table(named), "service" | "peer") => {
                    named
                        .values()
                        .for_each(|table| compare(&place, table.as_table().unwrap(), &known["additionalProperties"]));
                }
                (toml::Value::Table(_), "peers") => {}
                (toml::Value::Table(table), _) => compare(&place, table, known),
                (toml::Value::Array(tables), "forward") => {
                    tables.iter().for_each(|table| compare(&place, table.as_table().unwrap(), &known["items"]));
                }
                _ => assert!(known["description"].is_string() || known["type"].is_string(), "{place}"),
            }
        }
    }
    compare("", &complete, &schema);
    assert_eq!(schema["properties"]["transport"]["properties"]["kind"]["default"], "arti");
    assert!(schema["properties"]["service"]["additionalProperties"]["properties"]["allow"]["description"].is_string());
}
