//! arti's configuration: what suits onion services between a few machines, under the operator's file, under what is ours to say.

use crate::config::{self, Vanguards};
use crate::error::{Error, ErrorKind, Result};
use arti_client::TorClientConfig;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use tor_config::sources::MustRead;
use tor_config::{ConfigurationSource, ConfigurationSources};

/// What the operator's file may override. A peer whose claviger was restarted has new introduction points; a client that holds the old
/// descriptor asks each directory for the new one only after this time, which is 15 minutes in arti and would leave the peer unreachable so long.
const DEFAULTS: &str = "circuit_timing.hs_dir_requery_interval = \"10s\"\n";

/// The directory of arti's state within ours; its cache is beside it.
pub(super) const STATE: &str = "state";

/// arti's configuration, with its directories below `state`, which is made with mode 0700.
pub(super) fn load(config: &config::Arti, vanguards: Option<Vanguards>, state: &Path) -> Result<TorClientConfig> {
    DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(|error| {
        Error::new(
            ErrorKind::TransportUnavailable,
            format!("arti's directory {} can not be made.", state.display()),
            "Set `state` in [transport.arti] to a directory that you may write.",
        )
        .because(error)
    })?;
    let mut sources = ConfigurationSources::new_empty();
    sources.push_source(ConfigurationSource::from_verbatim(DEFAULTS.into()), MustRead::MustRead);
    if let Some(file) = &config.config {
        sources.push_source(ConfigurationSource::File(file.clone()), MustRead::MustRead);
    }
    sources.push_source(ConfigurationSource::from_verbatim(ours(state)?), MustRead::MustRead);
    if let Some(vanguards) = vanguards {
        let mode = match vanguards {
            Vanguards::Lite => "lite",
            Vanguards::Full => "full",
        };
        let text = format!("vanguards.mode = \"{mode}\"\n");
        sources.push_source(ConfigurationSource::from_verbatim(text), MustRead::MustRead);
    }
    let tree = sources.load().map_err(|error| invalid(config, &error))?;
    // Keys that only the arti program knows (`[proxy]`, `[logging]`) are logged and ignored.
    tor_config::resolve(&tree).map_err(|error| invalid(config, &error))
}

/// What the operator's file can not override: where arti writes, and that it writes no key.
fn ours(state: &Path) -> Result<String> {
    let literal = |name: &str| match state.join(name).into_os_string().into_string() {
        // As TOML; `literal` keeps arti from expanding `${…}` and `~`.
        Ok(path) => Ok(format!("{{ literal = {} }}", toml::Value::String(path))),
        Err(_) => Err(Error::new(
            ErrorKind::ConfigInvalid,
            format!("arti's directory {} has a name that is not UTF-8.", state.display()),
            "Set `state` in [transport.arti] to another directory.",
        )),
    };
    Ok(format!(
        "[storage]\nstate_dir = {}\ncache_dir = {}\n[storage.keystore]\nenabled = true\n[storage.keystore.primary]\nkind = \"ephemeral\"\n",
        literal(STATE)?,
        literal("cache")?,
    ))
}

fn invalid(config: &config::Arti, error: &dyn std::error::Error) -> Error {
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        why = format!("{why}: {next}");
        cause = next.source();
    }
    let file = config.config.as_ref().map_or("arti's configuration".into(), |file| file.display().to_string());
    Error::new(
        ErrorKind::ConfigInvalid,
        format!("arti does not take {file}: {}.", why.trim_end_matches('.').replace('\n', " ")),
        "Correct that file, which `config` in [transport.arti] names; it is in arti's own format.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn with(text: &str) -> Result<TorClientConfig> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("arti.toml");
        std::fs::write(&file, text).unwrap();
        let state = dir.path().join("a ${USER} \"state\"");
        let config = load(&config::Arti { config: Some(file), state: None }, None, &state);
        assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
        config
    }

    #[test]
    fn keys_and_directories_are_ours_whatever_the_file_says() {
        let config = with(
            "[storage]\nstate_dir = \"/elsewhere\"\ncache_dir = \"/elsewhere\"\n[storage.keystore]\nenabled = false\n\
             [storage.keystore.primary]\nkind = \"native\"\n[proxy]\nsocks_listen = 9150\n",
        )
        .unwrap();
        let text = format!("{config:?}");
        assert!(!text.contains("/elsewhere"), "{text}");
        assert!(text.contains("a ${USER} \\\"state\\\"/cache"), "{text}");
        assert!(config.keystore().is_enabled());
        assert!(config.keystore().primary_kind() == Some(tor_keymgr::config::ArtiKeystoreKind::Ephemeral));
    }

    #[test]
    fn the_file_goes_before_our_defaults() {
        let interval = |text: &str| {
            let text = format!("{:?}", with(text).unwrap());
            let at = text.find("hs_dir_requery_interval: ").unwrap();
            text[at..].split([' ', ',']).nth(1).unwrap().to_owned()
        };
        assert_eq!(interval(""), "10s");
        assert_eq!(interval("[circuit_timing]\nhs_dir_requery_interval = \"7s\""), "7s");
    }

    #[test]
    fn what_arti_does_not_take_is_said() {
        for text in ["[storage", "[circuit_timing]\nhs_dir_requery_interval = \"soon\"", "path_rules = 1"] {
            let error = with(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
            assert!(error.to_string().contains("arti.toml"), "{error}");
        }
        let absent = config::Arti { config: Some("/nonexistent/arti.toml".into()), state: None };
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(&absent, None, dir.path()).unwrap_err().kind(), ErrorKind::ConfigInvalid);
    }
}
