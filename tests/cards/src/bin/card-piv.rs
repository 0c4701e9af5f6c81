//! `card-piv`: piv-authenticator, the PIV applet of the Nitrokey 3. P-256 in 9D and the retired slots; a 3DES management key.
//!
//! It has one serial number for all cards and no public key that GET METADATA would tell: a card that is named by its GUID.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use claviger_cards::host::{ATR, Device, Hosted};
use claviger_cards::{Command, Control, options};
use piv_authenticator::{Authenticator, Options};

const USAGE: &str = "\
Usage: card-piv --port PORT --serial NUMBER --guid HEX [OPTIONS]
  --guid HEX                    GUID of the CHUID, 32 digits
  --storage DIRECTORY           keep the card's storage here [default: in memory]
  --touch-timeout-ms MS         [default: 15000]
  --garbage-seed NUMBER         [default: the serial number]";

fn main() -> ExitCode {
    options::report("card-piv", USAGE, start())
}

fn start() -> Result<(), Box<dyn Error>> {
    let (mut guid, mut storage) = (None, None);
    let common = options::read(|name, parser| {
        match name {
            "guid" => guid = Some(options::hex(parser.value()?)?),
            "storage" => storage = Some(PathBuf::from(parser.value()?)),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let applet = Options::new().uuid(Some(guid.ok_or("missing argument for option '--guid'")?));
    let control = Control::new();
    thread::scope(|scope| {
        let device =
            Device { id: "piv", control: &control, touch_timeout: common.touch_timeout, private: used_private_key };
        let mut card = Hosted::start(scope, device, storage.as_deref(), move |client| {
            let mut card = Authenticator::new(client, applet.clone());
            Box::new(move |command, answer| card.respond(command, answer))
        })?;
        claviger_cards::run(&common, &ATR, &control, &mut card);
        Ok(())
    })
}

/// GENERAL AUTHENTICATE with another key than the management key, and not the question for a challenge.
fn used_private_key(command: &Command, answer: &[u8]) -> bool {
    command.ins == 0x87 && command.p2 != 0x9B && !answer.is_empty()
}
