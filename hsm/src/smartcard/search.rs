//! Looking for a card among those that are plugged in.
//!
//! To look at a card selects our application on it, which costs other programs their PIN state where the card has several applications. So a
//! card that turned out to be another one is left alone while it stays in its reader.

use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

use pcsc::{Context, ReaderState, Scope, State};

use super::fault;
use super::{Exchange, Fault, Link};
use crate::error::Result;

/// How long a card counts as another one. pcscd numbers what happens in a reader, from nothing when the reader comes, and a USB token is a reader: two that
/// are exchanged between two looks cannot be told apart without looking.
const ANOTHER: Duration = Duration::from_secs(15);

/// What [`find`] came across.
pub(crate) struct Found<T> {
    /// The cards that were looked for.
    pub(crate) cards: Vec<(Link, T)>,
    /// Readers whose card another program holds for itself: what is looked for may be there.
    pub(crate) held: Vec<String>,
}

/// Looks for one card again and again.
#[derive(Default)]
pub(crate) struct Search {
    others: Vec<Other>,
}

/// A card that is another one.
struct Other {
    reader: CString,
    /// What pcscd had counted in that reader.
    events: u32,
    until: Instant,
}

/// Looks once, at every card: see [`Search::run`].
pub(crate) fn find<T>(
    look: impl FnMut(&mut dyn Exchange) -> std::result::Result<Option<T>, Fault>,
) -> Result<Found<T>> {
    Search::default().run(look)
}

impl Search {
    /// Connects to the cards, one after the other, and keeps those for which `look`, in a transaction, gives something. A card that fails is passed
    /// over; one that `look` says is another is not looked at again while it stays where it is.
    ///
    /// # Errors
    /// `ServiceAbsent`, also where polkit lets this process reach pcscd and no card, or pcscd ends meanwhile, and nothing was found.
    pub(crate) fn run<T>(
        &mut self,
        mut look: impl FnMut(&mut dyn Exchange) -> std::result::Result<Option<T>, Fault>,
    ) -> Result<Found<T>> {
        let context = Context::establish(Scope::User).map_err(fault::service)?;
        let readers = match context.list_readers_owned() {
            Err(pcsc::Error::NoReadersAvailable) => Vec::new(),
            readers => readers.map_err(fault::service)?,
        };
        let now = Instant::now();
        self.others.retain(|other| now < other.until && readers.contains(&other.reader));
        let mut found = Found { cards: Vec::new(), held: Vec::new() };
        let mut unreached = None;
        for reader in readers {
            let events = events(&context, &reader);
            if self.others.iter().any(|other| other.reader == reader && Some(other.events) == events) {
                continue;
            }
            let mut link = match Link::connect(&context, &reader) {
                Ok(link) => link,
                Err(Fault::Held) => {
                    found.held.push(reader.to_string_lossy().escape_debug().to_string());
                    continue;
                }
                Err(Fault::Service(error)) => {
                    unreached = Some(error);
                    continue;
                }
                Err(_) => continue,
            };
            match (link.transact(&mut look), events) {
                (Ok(Some(what)), _) => found.cards.push((link, what)),
                (Ok(None), Some(events)) => self.others.push(Other { reader, events, until: now + ANOTHER }),
                (Err(Fault::Service(error)), _) => unreached = Some(error),
                (Ok(None) | Err(_), _) => {}
            }
        }
        match unreached {
            Some(error) if found.cards.is_empty() && found.held.is_empty() => Err(fault::service(error)),
            _ => Ok(found),
        }
    }
}

/// How often a card was put into that reader or pulled, since pcscd started.
fn events(context: &Context, reader: &CStr) -> Option<u32> {
    let mut states = [ReaderState::new(reader, State::UNAWARE)];
    context.get_status_change(Duration::ZERO, &mut states).ok()?;
    Some(states[0].event_count())
}
