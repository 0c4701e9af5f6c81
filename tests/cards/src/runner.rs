//! The life of a card: in the reader, out of it, and back.

use std::net::{Ipv4Addr, TcpStream};
use std::thread;

use crate::apdu::{Applet, Asked, Assembler, SELECT};
use crate::control::Control;
use crate::garbage::Garbage;
use crate::options::Common;
use crate::wire::{self, Message};

/// Is the card until the end of standard input. A reader that has gone (pcscd ended) is tried again until it is back.
pub fn run(options: &Common, atr: &[u8], control: &Control, applet: &mut dyn Applet) {
    thread::scope(|scope| {
        scope.spawn(|| control.obey());
        let mut garbage = Garbage::new(options.garbage_seed);
        while control.wait_inserted() {
            let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, options.port)) else {
                control.wait_retry();
                continue;
            };
            if matches!(control.connected(&stream), Ok(true)) {
                // Its only error is that the connection has ended.
                let _ = serve(&stream, atr, control, applet, &mut garbage);
                control.disconnected();
                applet.reset();
            }
        }
    });
}

fn serve(
    stream: &TcpStream,
    atr: &[u8],
    control: &Control,
    applet: &mut dyn Applet,
    garbage: &mut Garbage,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut assembler = Assembler::default();
    loop {
        let apdu = match wire::read(stream)? {
            Message::Apdu(apdu) => apdu,
            Message::Atr => {
                wire::write(stream, atr)?;
                continue;
            }
            Message::Reset => {
                assembler.reset();
                applet.reset();
                continue;
            }
        };
        let is_select = apdu.get(1) == Some(&SELECT);
        let Some(whim) = control.whim(is_select) else { return Ok(()) };
        if whim.reset {
            assembler.reset();
            applet.reset();
        }
        let mut answer = match assembler.take(&apdu) {
            Asked::Answer(answer) => answer,
            Asked::Command(command, le) => {
                let result = applet.execute(&command);
                if matches!(&result, Ok(answer) if applet.used_private_key(&command, answer)) {
                    control.count_operation();
                }
                assembler.answer(result, le)
            }
        };
        if whim.garbage {
            answer = garbage.answer(&answer);
        }
        wire::write(stream, &answer)?;
    }
}
