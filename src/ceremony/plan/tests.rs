use proptest::prelude::*;

use super::*;
use crate::identity::{BackupKey, ClientAuthKeys, OnionKeys, StaticPublic, Suites, TokenKind};

const TWO: &str = "plan = 1\nname = \"pair\"\n\
    [[member]]\nname = \"wallet\"\nrole = \"signer\"\n[[member]]\nname = \"cosigner\"\nrole = \"cosigner\"\n\
    [[edge]]\nfrom = \"wallet\"\nto = \"cosigner\"\nservice = \"sign\"\n";

fn two() -> Plan {
    Plan::from_toml(TWO).unwrap()
}

fn vault() -> Plan {
    Plan::from_toml(EXAMPLE_VAULT).unwrap()
}

fn name(text: &str) -> Identifier {
    text.parse().unwrap()
}

fn refused(text: &str) -> (String, String) {
    let error = Plan::from_toml(text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PlanInvalid);
    (error.to_string(), error.hint().to_owned())
}

#[test]
fn a_plan_has_one_spelling() {
    let canonical = "plan = 1\nname = \"pair\"\n\n[rules]\nattestation = false\nbackup-token = false\nproof-of-possession = false\n\
        words-spoken = false\nwitnesses = 0\n\n[[member]]\nname = \"cosigner\"\nrole = \"cosigner\"\ncurve = \"x25519\"\n\n\
        [[member]]\nname = \"wallet\"\nrole = \"signer\"\ncurve = \"x25519\"\n\n\
        [[edge]]\nfrom = \"wallet\"\nto = \"cosigner\"\nservice = \"sign\"\n";
    assert_eq!(two().to_toml(), canonical);
    assert_eq!(Plan::from_toml(canonical).unwrap(), two());
}

/// The first half of `(printf 'claviger plan 1\n'; cat canonical.toml) | sha256sum`, where canonical.toml is the text of `a_plan_has_one_spelling`.
#[test]
fn the_fingerprint_is_as_documented() {
    assert_eq!(two().fingerprint().to_string(), "ee47 8c2d 0a1f 9ce5 5908 3c25 f7ea 7e44");
}

#[test]
fn the_vault_is_as_documented() {
    let vault = vault();
    let count = |role: &str| vault.members.iter().filter(|member| member.role.as_str() == role).count();
    assert_eq!(["stakeholder", "manager", "cosigner", "watchtower", "coordinator"].map(count), [3, 2, 3, 3, 1]);
    assert_eq!((vault.members.len(), vault.edges.len()), (12, 17));
    assert!(vault.warnings().is_empty());
    assert!(
        vault.joins(&name("coordinator"), &name("manager-2"))
            && !vault.joins(&name("stakeholder-1"), &name("watchtower-2"))
    );
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let with = |tail: &str| refused(&format!("{TWO}{tail}"));
    let edge = |from: &str, to: &str| with(&format!("[[edge]]\nfrom = {from}\nto = {to}\nservice = \"sign\"\n"));
    for ((what, hint), wanted, mend) in [
        (refused("name = \"pair\""), "The plan does not say `plan = 1`.", "Begin the file"),
        (refused("plan = 2\nnew = 1"), "Line 1, column 8 of the plan: plan version 2 is not read here.", "one release"),
        (
            refused("plan = 1\nname = \"a\"\nmembers = 1"),
            "Line 3, column 1 of the plan: unknown field `members`",
            "Did you mean `member`?",
        ),
        (
            refused("plan = 1\nname = \"a\"\n[rules]\nbackup_token = true"),
            "Line 4, column 1",
            "Did you mean `backup-token`?",
        ),
        (refused("plan = 1\nname = \"a\"\n[rules]\nwitnesses = 300"), "Line 4, column 13", "--example vault"),
        (refused("plan = 1\nname = \"A b\""), "Line 2, column 8 of the plan: \"A b\" is not a name.", "lower-case"),
        (refused("plan = 1\nname = \"a\""), "The plan has fewer than two members.", "[[member]]"),
        (refused("plan = 1\nname ="), "Line 2, column 7", "--example vault"),
        (
            refused("plan = 1\nname = \"a\"\ncurve = \"p384\""),
            "Line 3, column 9 of the plan: \"p384\" is not a curve",
            "x25519 or p256",
        ),
        (
            with("[[member]]\nname = \"wallet\"\nrole = \"x\""),
            "Line 14, column 8 of the plan: a second member \"wallet\".",
            "of its own",
        ),
        (
            edge("\"walet\"", "\"cosigner\""),
            "Line 14, column 8 of the plan: \"walet\" is not a member.",
            "Did you mean `wallet`?",
        ),
        (edge("[\"wallet\", \"tower\"]", "\"cosigner\""), "\"tower\" is not a member.", "List \"tower\""),
        (
            edge("\"wallet\"", "[\"cosigner\", \"wallet\"]"),
            "Line 15, column 6 of the plan: an edge from \"wallet\" to \"wallet\" itself.",
            "one end",
        ),
        (edge("[]", "\"wallet\""), "Line 14, column 8 of the plan: an edge without a member", "--example vault"),
        (edge("1", "\"wallet\""), "Line 14, column 8", "--example vault"),
        (
            with("[[edge]]\nfrom = \"wallet\"\nto = \"cosigner\"\nservice = \"Sign\""),
            "Line 16, column 11 of the plan: \"Sign\" is not a name.",
            "",
        ),
        (
            with(
                "[[member]]\nname = \"x\"\nrole = \"x\"\ncurve = \"p256\"\n[[edge]]\nfrom = \"x\"\nto = \"wallet\"\nservice = \"s\"",
            ),
            "Line 19, column 6 of the plan: a curve that a pair does not share: \"x\" has p256 and \"wallet\" has x25519.",
            "p256",
        ),
        (refused(&format!("plan = 1\n#{}", "a".repeat(MAX_PLAN_LEN))), "The plan is longer than 1024 KiB.", ""),
    ] {
        assert!(what.contains(wanted), "{what}\n{wanted}");
        assert!(hint.contains(mend), "{what}\n{hint}\n{mend}");
    }
}

#[test]
fn refusals_are_fit_for_a_terminal() {
    for text in ["plan = 1\nname = \"a\"\n\"\\u001b[2J\" = 1", "plan = 1\nname = \"\\u001b[2J\"", "plan = \"\\u001b\""]
    {
        let (what, hint) = refused(text);
        assert!(!what.chars().chain(hint.chars()).any(char::is_control), "{what:?} {hint:?}");
    }
}

#[test]
fn limits_hold_and_the_largest_plan_is_readable() {
    let long = |at: usize| format!("m{at:0>62}");
    let members = |n: usize| -> String {
        (0..n)
            .map(|at| format!("[[member]]\nname = \"{}\"\nrole = \"{}\"\ncurve = \"x25519\"\n", long(at), long(1)))
            .collect()
    };
    let names = |range: std::ops::Range<usize>| format!("{:?}", range.map(long).collect::<Vec<_>>());
    let head = "plan = 1\nname = \"large\"\n";
    let edge = |from, to| format!("[[edge]]\nfrom = {from}\nto = {to}\nservice = \"{}\"\n", long(0));
    let largest = format!("{head}{}{}", members(MAX_MEMBERS), edge(names(0..64), names(64..128)));
    let plan = Plan::from_toml(&largest).unwrap();
    assert_eq!(plan.edges.len(), MAX_EDGES);
    assert!(plan.to_toml().len() <= MAX_PLAN_LEN);
    assert_eq!(Plan::from_toml(&plan.to_toml()).unwrap(), plan);
    let one_more = refused(&format!("{largest}{}", edge(names(0..1), names(200..201))));
    assert!(one_more.0.contains("more than 4096 edges"), "{}", one_more.0);
    let one_more = refused(&format!("{head}{}", members(MAX_MEMBERS + 1)));
    assert_eq!(one_more.0, "The plan has 257 members, and 256 are the most.");
}

#[test]
fn who_has_no_edge_is_warned_of() {
    let plan = Plan::from_toml(&format!(
        "{TWO}[[member]]\nname = \"spare\"\nrole = \"x\"\n[rules]\nproof-of-possession = true"
    ))
    .unwrap();
    assert_eq!(plan.warnings(), ["No edge begins or ends at \"spare\": it connects with nobody."]);
    assert!(two().warnings()[0].starts_with("No proof of possession"));
}

fn card(identifier: &str, role: &str) -> IdentityCard {
    IdentityCard {
        identifier: name(identifier),
        role: role.parse().unwrap(),
        token: TokenKind::Hardware,
        attestation: None,
        static_public: StaticPublic::new(Curve::X25519, &[9; 32]).unwrap(),
        backup: None,
        onion_address: OnionKeys::generate().unwrap().address,
        client_auth: ClientAuthKeys::generate().unwrap().public,
        suites: Suites::default(),
        kem: None,
    }
}

#[test]
fn a_card_is_held_to_its_member() {
    let mut plan = two();
    let good = card("wallet", "signer");
    plan.check_card(&good).unwrap();
    for (bad, wanted) in [
        (card("stranger", "signer"), "\"stranger\" is not a member of the plan \"pair\"."),
        (card("wallet", "cosigner"), "The card of \"wallet\" says role cosigner, and the plan \"pair\" says signer."),
    ] {
        let error = plan.check_card(&bad).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::PlanMismatch, wanted));
    }
    plan.members[1].curve = Curve::P256;
    let error = plan.check_card(&good).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PlanMismatch);
    assert_eq!(error.to_string(), "The key of \"wallet\" is on x25519, and the plan \"pair\" says p256.");
    plan.members[1].curve = Curve::X25519;

    plan.rules.backup_token = true;
    let error = plan.check_card(&good).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PlanMismatch);
    assert!(error.to_string().contains("no backup key"), "{error}");
    let static_public = StaticPublic::new(Curve::X25519, &[5; 32]).unwrap();
    let backup = Some(BackupKey { static_public, token: TokenKind::Hardware, attestation: None });
    let mut good = IdentityCard { backup, ..good };
    plan.check_card(&good).unwrap();

    plan.rules.attestation = true;
    let chain = vec![vec![0x30, 0], vec![0x30, 1]];
    let proof = crate::identity::Attestation::new(crate::identity::AttestationFormat::YubicoPiv, chain).unwrap();
    for wanted in ["The key of", "The backup key of"] {
        let error = plan.check_card(&good).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AttestationMissing);
        assert!(error.to_string().starts_with(wanted), "{error}");
        good.attestation = Some(proof.clone());
    }
    good.backup.as_mut().unwrap().attestation = Some(proof);
    plan.check_card(&good).unwrap();
}

#[test]
fn changes_are_told() {
    let old = vault();
    assert!(old.changes(&old).is_empty() && old.changes(&old).to_text().is_empty());
    let grown = Plan::from_toml(&format!(
        "{EXAMPLE_VAULT}[[member]]\nname = \"cosigner-4\"\nrole = \"cosigner\"\n[[edge]]\nfrom = \"manager-1\"\nto = \"cosigner-4\"\nservice = \"sign\"\n"
    ))
    .unwrap();
    let changes = old.changes(&grown);
    assert!(changes.only_adds());
    assert_eq!(changes.to_text(), "+ member  cosigner-4 (cosigner, x25519)\n+ edge    manager-1 -> cosigner-4: sign\n");
    let back = grown.changes(&old);
    assert!(!back.only_adds());
    assert_eq!(back.to_text(), "- edge    manager-1 -> cosigner-4: sign\n- member  cosigner-4 (cosigner, x25519)\n");

    let other = EXAMPLE_VAULT.replace("name = \"vault\"", "name = \"safe\"").replace("witnesses = 2", "witnesses = 1");
    let other = Plan::from_toml(&other.replace("role = \"coordinator\"", "role = \"hub\"")).unwrap();
    let changes = old.changes(&other);
    assert!(!changes.only_adds());
    assert_eq!(
        changes.to_text(),
        "~ name    vault: now safe\n~ rule    witnesses: 2, now 1\n~ member  coordinator (coordinator, x25519): now hub, x25519\n"
    );
}

#[test]
fn losses_are_told() {
    let vault = vault();
    let losses = |own: &str, gone: &str| vault.losses(&name(own), &name(gone));
    assert_eq!(losses("manager-1", "cosigner-2"), ["manager-1 can no longer connect to cosigner-2 for sign."]);
    assert_eq!(
        losses("manager-1", "coordinator"),
        [
            "manager-1 can no longer connect to coordinator for spend.",
            "After this, manager-1 reaches no coordinator.",
            "After this, manager-1 reaches nobody for spend.",
        ]
    );
    assert_eq!(
        losses("watchtower-1", "coordinator"),
        ["watchtower-1 can no longer connect to coordinator for spend.", "After this, watchtower-1 reaches nobody."]
    );
    assert_eq!(
        losses("watchtower-1", "stakeholder-1"),
        [
            "stakeholder-1 can no longer connect to watchtower-1 for watch.",
            "After this, nobody connects to watchtower-1 for watch.",
        ]
    );
    assert_eq!(losses("coordinator", "manager-1"), ["manager-1 can no longer connect to coordinator for spend."]);
    assert!(losses("stakeholder-1", "stakeholder-2").is_empty());

    let left = |who: &Identifier| !who.as_str().starts_with("cosigner");
    let losses = vault.losses_among(&name("manager-1"), &name("cosigner-2"), left);
    assert_eq!(
        losses[1..],
        ["After this, manager-1 reaches no cosigner.", "After this, manager-1 reaches nobody for sign."]
    );
}

#[test]
fn losses_by_another_plan_are_told() {
    let vault = vault();
    let without = |what: &str| Plan::from_toml(&EXAMPLE_VAULT.replace(what, "")).unwrap();
    let own = name("manager-1");
    assert!(vault.losses_by(&vault, &own).is_empty());
    let fewer = without("\"cosigner-1\", ");
    assert_eq!(vault.losses_by(&fewer, &own), ["manager-1 can no longer connect to cosigner-1 for sign."]);
    assert!(fewer.losses_by(&vault, &own).is_empty());
    let none = EXAMPLE_VAULT.replace("from = [\"manager-1\", \"manager-2\"]", "from = [\"manager-2\"]");
    let none = Plan::from_toml(&none).unwrap();
    assert_eq!(
        vault.losses_by(&none, &own)[3..],
        ["After this, manager-1 reaches no cosigner.", "After this, manager-1 reaches nobody for sign."]
    );
    let served = Plan::from_toml(&EXAMPLE_VAULT.replace("\"manager-1\", \"manager-2\"", "\"manager-1\"")).unwrap();
    assert_eq!(
        vault.losses_by(&served, &name("cosigner-1")),
        ["manager-2 can no longer connect to cosigner-1 for sign."]
    );
    assert_eq!(vault.losses_by(&served, &name("manager-2")).last().unwrap(), "After this, manager-2 reaches nobody.");
}

/// Members by number, and edges by numbers of members and of a service.
#[derive(Debug, Clone)]
struct Drawn {
    members: Vec<(u8, u8)>,
    edges: Vec<(u8, u8, u8)>,
    rules: Rules,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let members = proptest::collection::btree_map(0u8..20, 0u8..4, 2..12).prop_map(Vec::from_iter);
    let edges = proptest::collection::vec((any::<u8>(), any::<u8>(), 0u8..3), 0..20);
    let rules = (any::<[bool; 4]>(), any::<u8>()).prop_map(
        |([attestation, backup_token, proof_of_possession, words_spoken], witnesses)| Rules {
            attestation,
            backup_token,
            proof_of_possession,
            words_spoken,
            witnesses,
        },
    );
    (members, edges, rules).prop_map(|(members, edges, rules)| {
        let count = members.len() as u8;
        let edges = edges.into_iter().map(|(from, to, service)| (from % count, to % count, service));
        Drawn { edges: edges.filter(|(from, to, _)| from != to).collect(), members, rules }
    })
}

impl Drawn {
    fn end(&self, at: u8) -> String {
        format!("\"m-{}\"", self.members[usize::from(at)].0)
    }

    /// The plan as somebody may write it: in the order of `shuffle`, with comments, with defaults left out, edges of one `to` and service in one table.
    fn written(&self, shuffle: u64, grouped: bool) -> String {
        let key = |at: usize| (at as u64 + 1).wrapping_mul(shuffle | 1).rotate_left(17);
        let rules = self
            .rules
            .table()
            .into_iter()
            .filter(|(_, value)| value != "false")
            .map(|(name, value)| format!("{name} = {value}\n"));
        let mut tables = vec![format!("[rules] # {shuffle}\n{}\n", rules.collect::<String>())];
        for (number, role) in &self.members {
            tables.push(format!("[[member]]\nrole = \"r{role}\"\n# one\nname = 'm-{number}'\n"));
        }
        let mut edges = self.edges.clone();
        while let Some((from, to, service)) = edges.pop() {
            let mut froms = vec![self.end(from)];
            if grouped {
                froms
                    .extend(edges.iter().filter(|edge| (edge.1, edge.2) == (to, service)).map(|edge| self.end(edge.0)));
                edges.retain(|edge| (edge.1, edge.2) != (to, service));
            }
            tables.push(format!(
                "[[edge]]\nservice = \"s{service}\"\nto = {}\nfrom = [{}]\n",
                self.end(to),
                froms.join(", ")
            ));
        }
        let mut order: Vec<usize> = (0..tables.len()).collect();
        order.sort_by_key(|at| key(*at));
        let tables: String = order.into_iter().map(|at| tables[at].as_str()).collect();
        format!("name = 'drawn'\nplan = 1\n{tables}")
    }
}

proptest! {
    #[test]
    fn order_comments_and_grouping_do_not_count(drawn in drawn(), shuffle: u64) {
        let plan = Plan::from_toml(&drawn.written(1, false)).unwrap();
        prop_assert_eq!(&Plan::from_toml(&plan.to_toml()).unwrap(), &plan);
        let other = Plan::from_toml(&drawn.written(shuffle, true)).unwrap();
        prop_assert_eq!(other.fingerprint(), plan.fingerprint());
        prop_assert!(plan.changes(&other).is_empty());
    }

    #[test]
    fn every_difference_counts(drawn in drawn(), at: prop::sample::Index) {
        let plan = Plan::from_toml(&drawn.written(1, false)).unwrap();
        let mut others = vec![plan.clone(); 6];
        others[0].name = name("other");
        others[1].rules.witnesses ^= 1;
        others[2].rules.backup_token ^= true;
        others[3].members[at.index(plan.members.len())].role = "other".parse().unwrap();
        others[4].members[at.index(plan.members.len())].curve = Curve::P256;
        if !plan.edges.is_empty() {
            others[5].edges.remove(at.index(plan.edges.len()));
        }
        for (which, other) in others.iter().enumerate().filter(|(which, _)| *which < 5 || !plan.edges.is_empty()) {
            prop_assert_ne!(other.fingerprint(), plan.fingerprint(), "{}", which);
            prop_assert!(!plan.changes(other).is_empty());
        }
    }

    #[test]
    fn losses_name_each_edge_once(drawn in drawn(), own: prop::sample::Index, gone: prop::sample::Index) {
        let plan = Plan::from_toml(&drawn.written(1, false)).unwrap();
        let [own, gone] = [own, gone].map(|at| &plan.members[at.index(plan.members.len())].identifier);
        let ended = plan.losses(own, gone).iter().filter(|loss| loss.contains("can no longer")).count();
        prop_assert_eq!(ended, if own == gone { 0 } else { plan.between(own, gone).len() });
    }
}
