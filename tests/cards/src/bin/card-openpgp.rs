//! `card-openpgp`: opcard, the OpenPGP applet of the Nitrokey 3. X25519 and P-256, touch (UIF), KDF-DO.
//!
//! opcard is under the LGPL 3.0, and this program with it.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use claviger_cards::host::{ATR, Device, Hosted};
use claviger_cards::{Command, Control, options};
use opcard::{Card, Options};

const USAGE: &str = "\
Usage: card-openpgp --port PORT --serial NUMBER [OPTIONS]
  --manufacturer HEX            4 digits [default: FFFE, cards with random serial numbers]
  --storage DIRECTORY           keep the card's storage here [default: in memory]
  --touch-timeout-ms MS         [default: 15000]
  --garbage-seed NUMBER         [default: the serial number]";

fn main() -> ExitCode {
    options::report("card-openpgp", USAGE, start())
}

fn start() -> Result<(), Box<dyn Error>> {
    let (mut manufacturer, mut storage) = ([0xFF, 0xFE], None);
    let common = options::read(|name, parser| {
        match name {
            "manufacturer" => manufacturer = options::hex(parser.value()?)?,
            "storage" => storage = Some(PathBuf::from(parser.value()?)),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let mut applet = Options::default();
    applet.manufacturer = manufacturer;
    applet.serial = common.serial.to_be_bytes();
    let control = Control::new();
    thread::scope(|scope| {
        let device =
            Device { id: "opcard", control: &control, touch_timeout: common.touch_timeout, private: used_private_key };
        let mut card = Hosted::start(scope, device, storage.as_deref(), move |client| {
            let mut card = Card::new(client, applet.clone());
            Box::new(move |command, answer| card.handle(command, answer))
        })?;
        claviger_cards::run(&common, &ATR, &control, &mut card);
        Ok(())
    })
}

/// PSO:DECIPHER, PSO:COMPUTE DIGITAL SIGNATURE and INTERNAL AUTHENTICATE.
fn used_private_key(command: &Command, _answer: &[u8]) -> bool {
    matches!((command.ins, command.p1, command.p2), (0x2A, 0x80, 0x86) | (0x2A, 0x9E, 0x9A) | (0x88, 0, 0))
}
