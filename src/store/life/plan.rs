//! The plan of the ceremony, as this machine holds it.

use rusqlite::{Connection, OptionalExtension, params};

use crate::ceremony::log::{Event, MOVED};
use crate::ceremony::plan::{MAX_PLAN_LEN, Plan};
use crate::error::{Error, ErrorKind, Result};
use crate::store::cards::{Place, check_plan, check_shared};
use crate::store::seal::Step;
use crate::store::{Added, Machine, Peer, Store, fail, log, row};

impl Store {
    /// The plan of the ceremony.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn plan(&self) -> Result<Option<Plan>> {
        let view = self.view()?;
        let hash = view
            .transaction
            .query_row("SELECT text FROM plan", [], |row| row::hash(row, 0))
            .optional()
            .map_err(|error| row::unreadable(&self.dir, "plan", error))?;
        view.check("plan", "", hash.as_ref())?;
        self.plan_in(&view.transaction)
    }

    /// Records a plan, or another in its place, and logs it. Members that an edge joins to this machine now and whose cards were only held become peers, and
    /// peers that no edge joins any more become cards that are only held; each is logged.
    ///
    /// # Errors
    /// [`PlanMismatch`](crate::ErrorKind::PlanMismatch) when this machine, a peer or a card that is held is not according to it, and when a peer whose time is
    /// limited would become a card that is only held, which keeps no limit; [`NoSharedCurve`](crate::ErrorKind::NoSharedCurve) and [`NoSharedSuite`](crate::ErrorKind::NoSharedSuite) for a member that is joined and can not be talked
    /// to: nothing was changed. [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn set_plan(&mut self, plan: &Plan, how: &str) -> Result<Added> {
        self.change("record the plan", |connection| {
            if self.plan_text(connection)?.is_some_and(|text| text == plan.to_toml()) {
                return Ok(Step::Nothing(Added::AlreadyThere));
            }
            let (machine, _) = row::machine(connection, &self.dir)?;
            let own = &machine.card;
            plan.check_card(own)?;
            let peers = self.raw_peers(connection, "ORDER BY identifier")?;
            let peers = peers.iter().map(|raw| raw.parse("peers", &self.dir)).collect::<Result<Vec<_>>>()?;
            let held = self.held(connection)?;
            self.put_plan(connection, plan, &machine, how)?;
            for peer in &peers {
                // Without a card there is nothing that could be held.
                let joined = plan.joins(&own.identifier, &peer.identifier) || peer.card().is_none();
                check_plan(plan, &own.identifier, peer, if joined { Place::Peer } else { Place::Held })?;
                if !joined {
                    check_unlimited(peer)?;
                    self.r#move(connection, peer, Place::Held)?;
                }
            }
            for card in &held {
                check_plan(plan, &own.identifier, card, Place::Held)?;
                if plan.joins(&own.identifier, &card.identifier) {
                    check_shared(own, card)?;
                    self.r#move(connection, card, Place::Peer)?;
                }
            }
            Ok(Step::Done(Added::New))
        })
    }

    /// Moves a member to the other side, as the plan wants it.
    fn r#move(&self, connection: &Connection, member: &Peer, to: Place) -> Result<()> {
        let member = Peer { former: None, expires: None, ..member.clone() };
        self.take_out(connection, &member.identifier)?;
        self.put(connection, &member, to)?;
        let told = |event| self.log_peer(connection, event, &member, MOVED);
        match to {
            Place::Peer => told(Event::PeerAdded),
            Place::Held => told(Event::PeerRemoved).and_then(|()| told(Event::CardAdded)),
        }
    }

    pub(in crate::store) fn put_plan(
        &self,
        connection: &Connection,
        plan: &Plan,
        machine: &Machine,
        how: &str,
    ) -> Result<()> {
        connection
            .execute("INSERT OR REPLACE INTO plan (one, text) VALUES (1, ?1)", params![plan.to_toml()])
            .and_then(|_| {
                log::append(connection, Event::PlanRecorded, &machine.card.identifier, plan.fingerprint(), how)
            })
            .map_err(fail::sql(&self.dir, "record the plan"))
    }

    /// The plan, unverified.
    pub(in crate::store) fn plan_in(&self, connection: &Connection) -> Result<Option<Plan>> {
        let Some(text) = self.plan_text(connection)? else { return Ok(None) };
        if text.len() > MAX_PLAN_LEN {
            return Err(fail::corrupt(&self.dir, "the text of table `plan` is too long"));
        }
        Plan::from_toml(&text)
            .map(Some)
            .map_err(|error| fail::corrupt(&self.dir, &format!("table `plan`: {}", row::clause(&error.to_string()))))
    }

    fn plan_text(&self, connection: &Connection) -> Result<Option<String>> {
        connection
            .query_row("SELECT text FROM plan", [], |row| row.get(0))
            .optional()
            .map_err(|error| row::unreadable(&self.dir, "plan", error))
    }
}

/// Refuses to forget a peer's limit: another plan that joins it again would let it in for good.
fn check_unlimited(peer: &Peer) -> Result<()> {
    if peer.expires.is_none() {
        return Ok(());
    }
    let name = &peer.identifier;
    Err(Error::new(
        ErrorKind::PlanMismatch,
        format!(
            "No edge of the plan joins \"{name}\" to this machine any more, and a card that is only held keeps no limit of its time; nothing was changed."
        ),
        format!(
            "Revoke it with `claviger-ceremony revoke {name} --reason TEXT`, or take its limit away with `claviger-ceremony expire {name} --never`; then record the plan."
        ),
    ))
}
