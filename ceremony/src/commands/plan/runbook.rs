//! The runbook of a plan: what the people in the room do, in which order, with which commands.

use claviger::ceremony::plan::{Edge, Member, Plan, Rules};
use claviger::identity::Role;

use super::page::{Block, Page, Step};

/// Who holds a page for several machines writes their own one's name for this.
const NAME: &str = "NAME";
/// What `token generate` prints.
const LOCATOR: &str = "LOCATOR";
const BACKUP: &str = "LOCATOR-2";

/// The pages of one plan.
pub(super) struct Runbook<'a> {
    plan: &'a Plan,
    /// The plan's file, as the commands name it.
    file: &'a str,
    words: String,
}

impl<'a> Runbook<'a> {
    pub(super) fn new(plan: &'a Plan, file: &'a str) -> Self {
        Self { plan, file, words: plan.fingerprint().words() }
    }

    /// Every page: who leads, each role in the order of its name, the witnesses.
    pub(super) fn pages(&self) -> Vec<Page> {
        let mut roles: Vec<&Role> = self.plan.members.iter().map(|member| &member.role).collect();
        roles.sort();
        roles.dedup();
        let roles = roles.into_iter().map(|role| self.role(role));
        std::iter::once(self.leader()).chain(roles).chain([self.witness()]).collect()
    }

    /// The page of a role, for all its members.
    pub(super) fn role(&self, role: &Role) -> Page {
        let members: Vec<&Member> = self.plan.members.iter().filter(|member| member.role == *role).collect();
        self.keeper(format!("role-{role}"), &members)
    }

    /// The page of one member.
    pub(super) fn member(&self, member: &Member) -> Page {
        self.keeper(format!("member-{}", member.identifier), &[member])
    }

    fn keeper(&self, name: String, members: &[&Member]) -> Page {
        let role = members.first().map(|member| member.role.to_string()).unwrap_or_default();
        let own = match members {
            [only] => only.identifier.as_str(),
            _ => NAME,
        };
        let names = members.iter().map(|member| member.identifier.as_str()).collect::<Vec<_>>().join(", ");
        let title = format!("{}: {}", self.plan.name, if members.len() == 1 { &names } else { &role });
        let mut blocks = vec![Block::Text(match members {
            [_] => format!("You answer for the machine {names}, role {role}."),
            _ => format!("You answer for one of {names}; {NAME} below is its name. A page for each."),
        })];
        blocks.push(Block::Blanks(&[&["Machine", "Keeper", "Date"]]));
        blocks.push(Block::Heading("Bring"));
        blocks.extend(self.bring().into_iter().map(Block::Check));
        blocks.push(Block::Heading("Do, each step when who leads calls it"));
        blocks.extend(self.steps(own, &curves(members)).into_iter().map(Block::Step));
        blocks.push(Block::Break);
        blocks.push(Block::Heading("Later, in place"));
        blocks.push(Block::Step(Step {
            title: "Roll call",
            text: "At the agreed time, on the phone. Tick what was reached with the same four words at both ends."
                .into(),
            commands: vec!["claviger rollcall".into()],
            otherwise: Some("the table names the reason. Other words: hang up, somebody is in between.".into()),
            ..Step::default()
        }));
        let ends = |edge: &&Edge| members.iter().any(|member| edge.other(&member.identifier).is_some());
        let edges: Vec<&Edge> = self.plan.edges.iter().filter(ends).collect();
        if !edges.is_empty() {
            blocks.push(Block::Heading("Edges"));
            blocks.push(edge_table(&edges));
        }
        blocks.push(Block::Heading("When something else happens"));
        blocks.push(Block::Text(
            "Say so aloud, and stop. A command that fails has changed nothing; its second sentence says what to do. Do it when who leads agrees, and have a \
             witness write it down."
                .into(),
        ));
        blocks.push(Block::Table(vec!["What it says", "What it means"], trouble(&self.plan.rules)));
        blocks.push(Block::Blanks(&[&["Begun", "Ended", "Witness"], &["Keeper's signature"]]));
        Page { name, title, blocks }
    }

    fn bring(&self) -> Vec<String> {
        let rules = &self.plan.rules;
        let token = match (rules.backup_token, rules.attestation) {
            (true, true) => "Two tokens that attest their keys (YubiKey), with their PINs in your head.",
            (true, false) => "Two tokens, set up, with their PINs in your head.",
            (false, true) => {
                "Its token, which attests its key (YubiKey), with its PIN in your head; a second one if you want a backup."
            }
            (false, false) => "Its token, set up, with its PIN in your head; a second one if you want a backup.",
        };
        vec!["The machine: disk encrypted, claviger-ceremony of the agreed release, no network.".into(), token.into()]
    }

    fn steps(&self, own: &str, curve: &str) -> Vec<Step> {
        let Self { plan, file, words } = self;
        let rules = &plan.rules;
        let backup = if rules.backup_token { format!(" --backup-token {BACKUP}") } else { String::new() };
        let mut steps = vec![Step {
            title: "Plan",
            text: format!("Copy {file} from the stick that goes round."),
            commands: vec![format!("claviger-ceremony plan check {file}")],
            say: Some(format!("\"{words}\"")),
            otherwise: Some("you have another plan than this page. Copy it again.".into()),
            ..Step::default()
        }];
        let mut made = vec![
            "claviger-ceremony token list".to_owned(),
            format!("claviger-ceremony token generate --curve {curve} TOKEN"),
        ];
        if rules.backup_token {
            made.push(format!("claviger-ceremony token generate --curve {curve} TOKEN-2"));
        }
        steps.push(Step {
            title: "Key",
            text: format!(
                "TOKEN{} in the list. What `generate` prints is the {LOCATOR}{}.",
                if rules.backup_token { " and TOKEN-2 stand" } else { " stands" },
                if rules.backup_token { format!(", then {BACKUP}") } else { String::new() },
            ),
            commands: made,
            ..Step::default()
        });
        steps.push(Step {
            title: "Identity",
            text: if rules.backup_token { String::new() } else { "With a backup token add --backup-token.".into() },
            commands: vec![
                format!("claviger-ceremony preflight --plan {file} --name {own} --token {LOCATOR}{backup}"),
                format!("claviger-ceremony init --plan {file} --name {own} --token {LOCATOR}{backup}"),
            ],
            otherwise: Some("mend what preflight names before init.".into()),
            ..Step::default()
        });
        steps.push(Step {
            title: "Card",
            text: "Put the stick in, go to its directory, and pass it on afterwards.".into(),
            commands: vec!["claviger-ceremony export".into()],
            ..Step::default()
        });
        steps.push(Step {
            title: "Others' cards",
            text: format!(
                "When the stick comes round again with all {} cards. For each, type the two words that are left out, as its keeper says them.",
                plan.members.len()
            ),
            commands: vec!["claviger-ceremony import *.card".into(), "claviger-ceremony show".into()],
            say: Some(format!("your own eight words, from `show`, twice, when {own} is called.")),
            otherwise: Some("the card was exchanged or is an old one: export it anew, and carry it by another way.".into()),
            ..Step::default()
        });
        if rules.proof_of_possession {
            steps.push(proofs(own, rules.backup_token));
        }
        let witnesses: String = (0..rules.witnesses).map(|_| " --witness 'NAME'").collect();
        steps.push(Step {
            title: "Phrase",
            text: "Twelve words, read from another machine's screen. Write them down, and type the two that confirm leaves out.".into(),
            commands: vec![
                "claviger-ceremony phrase".into(),
                format!("claviger-ceremony confirm --by 'YOUR NAME'{witnesses}"),
            ],
            room: 2,
            say: Some("\"the same\" or \"stop\" at each word that is read.".into()),
            otherwise: Some("nobody confirms. Compare `claviger-ceremony peers` with each other, card by card.".into()),
        });
        steps.push(Step {
            title: "Transcript",
            text: "Onto the stick, for who leads.".into(),
            commands: vec![format!("claviger-ceremony transcript {own}.transcript.json --json")],
            ..Step::default()
        });
        steps
    }
}

impl Runbook<'_> {
    fn leader(&self) -> Page {
        let Self { plan, file, words } = self;
        let (members, edges) = (plan.members.len(), plan.edges.len());
        let step = |title, text: String| Step { title, text: text + " Time ______", ..Step::default() };
        let mut steps = vec![
            Step {
                commands: vec![format!("claviger-ceremony rehearse {file}")],
                ..step("Before the day", "Have every keeper read the plan. Rehearse it once. Print these pages from the plan that was agreed.".into())
            },
            Step {
                say: Some(format!("\"{words}\"")),
                otherwise: Some("somebody has another plan: give them the file again, and find out where theirs came from.".into()),
                ..step("Plan", format!("The stick with {file} goes round. Read the plan's words aloud; every keeper reads theirs."))
            },
            step("Keys and identities", "All at once. Everybody says which release `claviger-ceremony --version` shows; all are the same.".into()),
            step("Cards", format!("The stick goes round and collects {members} cards: `ls *.card` shows as many.")),
            Step {
                say: Some("\"NAME, your words.\" Its keeper reads eight words twice; everybody types the two that their screen leaves out.".into()),
                ..step(
                    "Others' cards",
                    format!("The stick goes round again. Call the {members} machines in the order of the list below: import asks in the order of the files."),
                )
            },
        ];
        if plan.rules.proof_of_possession {
            steps.push(step(
                "Proofs",
                format!("Three rounds of the stick: it collects {members} challenges, then the files of proofs; then everybody verifies them. Within the hour: a challenge expires."),
            ));
        }
        steps.push(Step {
            otherwise: Some("nobody confirms: a key was exchanged somewhere. Find the card that differs, and begin again at its export.".into()),
            ..step("Phrase", "One keeper reads twelve words from their screen, twice. Everybody says \"the same\" or \"stop\" at each, then confirms; a second keeper reads for the first.".into())
        });
        steps.push(Step {
            commands: vec!["claviger-ceremony transcript verify *.transcript.json".into()],
            otherwise: Some("what it names was not the same in the room. Nobody goes home.".into()),
            ..step("Transcripts", format!("Collect {members}, and compare them. Keep them, and the signed pages."))
        });
        steps.push(step(
            "Roll call",
            format!("In place, by phone, at the agreed time: {edges} edges. Both ends say the same four words; tick them below."),
        ));
        let blocks = vec![
            Block::Text(format!(
                "You lead: you call the steps, in this order, and nobody goes on before all are done. {members} machines, {edges} edges; demanded are {}.",
                super::report::demands(&plan.rules).join(", ")
            )),
            Block::Blanks(&[&["Place", "Date"]]),
            Block::Heading("Order"),
        ];
        let mut blocks: Vec<Block> = blocks.into_iter().chain(steps.into_iter().map(Block::Step)).collect();
        let tick = || "[ ]".to_owned();
        let rows = plan.members.iter().map(|Member { identifier, role, curve }| {
            vec![identifier.to_string(), role.to_string(), curve.to_string(), tick(), tick(), tick(), "_".repeat(16)]
        });
        blocks.push(Block::Break);
        blocks.push(Block::Heading("Members"));
        blocks.push(Block::Table(vec!["Name", "Role", "Curve", "Card", "Proof", "Phrase", "Keeper"], rows.collect()));
        if !plan.edges.is_empty() {
            blocks.push(Block::Heading("Edges"));
            blocks.push(edge_table(&plan.edges.iter().collect::<Vec<_>>()));
        }
        blocks.push(Block::Blanks(&[&["Begun", "Ended"], &["Led by"]]));
        Page { name: "leader".into(), title: format!("{}: who leads", plan.name), blocks }
    }

    fn witness(&self) -> Page {
        let Self { plan, words, .. } = self;
        let mut blocks = vec![Block::Text(match plan.rules.witnesses {
            0 => "The plan demands no witness. Whoever watches writes down what they saw; `claviger-ceremony witness NAME` records them.".into(),
            1 => "You watch, touch no machine, and write down what you saw. `confirm` records your name.".into(),
            many => format!("You watch, {many} of you, touch no machine, and write down what you saw. `confirm` records your names. A page each."),
        })];
        blocks.push(Block::Blanks(&[&["Witness", "Place and date"]]));
        blocks.push(Block::Heading("See, and tick"));
        let mut see = vec![
            format!("Every keeper read the plan's words: \"{words}\"."),
            "Every token went into its own keeper's machine, and nobody told or showed a PIN.".into(),
            "Eight words of each machine were read from that machine's own screen, not from a card, a stick or a paper.".into(),
            "On every other machine its keeper typed the two words that were left out.".into(),
        ];
        if plan.rules.proof_of_possession {
            see.push("Every machine said that the proofs of all the others hold.".into());
        }
        if plan.rules.backup_token {
            see.push("Both tokens of every machine were in the room, and answered.".into());
        }
        see.push(
            "The twelve words of the phrase were the same on every screen, and only then everybody confirmed.".into(),
        );
        see.push("The transcripts were compared, and `transcript verify` found no difference.".into());
        blocks.extend(see.into_iter().map(Block::Check));
        blocks.push(Block::Heading("The phrase"));
        blocks.push(Block::Blanks(&[&["1", "2", "3", "4"], &["5", "6", "7", "8"], &["9", "10", "11", "12"]]));
        blocks.push(Block::Heading("What went otherwise, and when"));
        blocks.push(Block::Blanks(&[&["Time", "What"], &["Time", "What"], &["Time", "What"]]));
        blocks.push(Block::Blanks(&[&["Begun", "Ended"], &["Signature"]]));
        Page { name: "witness".into(), title: format!("{}: witness", plan.name), blocks }
    }
}

/// A table of edges to tick.
fn edge_table(edges: &[&Edge]) -> Block {
    let rows = edges.iter().map(|Edge { from, to, service }| {
        vec![from.to_string(), to.to_string(), service.to_string(), "[ ]".into(), "_".repeat(20)]
    });
    Block::Table(vec!["From", "To", "Service", "Reached", "Words"], rows.collect())
}

fn proofs(own: &str, backup: bool) -> Step {
    let mut commands = vec![
        format!("claviger-ceremony challenge {own}.challenge"),
        format!("claviger-ceremony prove *.challenge --out {own}.proofs"),
    ];
    if backup {
        commands.push(format!("claviger-ceremony prove *.challenge --backup --out {own}.backup.proofs"));
    }
    commands.push("claviger-ceremony verify-proof *.proofs".into());
    Step {
        title: "Proofs",
        text: if backup {
            "The stick goes round three times: challenge, prove, verify. Touch the token when asked.".into()
        } else {
            "The stick goes round three times: a command each. Touch the token when asked. With a backup token prove again, with --backup.".into()
        },
        commands,
        otherwise: Some("that token does not hold the key on the card, or the hour is over. Who verifies makes a new challenge, once.".into()),
        ..Step::default()
    }
}

/// What may go wrong at a keeper's machine.
fn trouble(rules: &Rules) -> Vec<Vec<String>> {
    let mut rows = vec![
        [
            "... is not that of this card",
            "It was exchanged on its way, or is an old one: export it anew, carry it by another way.",
        ],
        [
            "... is not a member of the plan",
            "A card of another ceremony, or a stranger's: put it aside, ask who brought it.",
        ],
        ["... says role, ... is on", "That machine was set up otherwise than planned: init it again, in a new store."],
        ["... checksum does not match", "The file was damaged or edited on its way: copy it again."],
        ["... is recorded already", "Two machines of one name or key: find out which is the second."],
        [
            "... changed outside the tool",
            "Somebody changed this store: set it aside as evidence, begin at step 2 in a new one.",
        ],
    ];
    if rules.attestation {
        rows.push(["... has no attestation", "The key was not made in a device that attests: make it anew."]);
    }
    if rules.proof_of_possession {
        rows.push([
            "... proof",
            "Another ceremony's, too late, used, or not by the key on the card: make a new challenge, once.",
        ]);
    }
    rows.extend([
        ["... PIN", "Do not guess. Its second sentence says how many tries are left."],
        ["... token ... not there", "Plug it in again, and look with `claviger-ceremony token list`."],
    ]);
    rows.into_iter().map(|row| row.map(str::to_owned).to_vec()).collect()
}

/// The curve of the members, or what stands for it where they differ.
fn curves(members: &[&Member]) -> String {
    let mut curves: Vec<String> = members.iter().map(|member| member.curve.to_string()).collect();
    curves.sort();
    curves.dedup();
    curves.join("|")
}
