//! Plans: what is read has one canonical text, which reads as the same plan, and what is refused is refused in words fit for a terminal.

use claviger::ErrorKind;
use claviger::ceremony::plan::{MAX_EDGES, MAX_MEMBERS, MAX_PLAN_LEN, Plan};

/// Reads `data` as a plan.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Plan::from_toml(text) {
        Ok(plan) => {
            let written = plan.to_toml();
            assert!(written.len() <= MAX_PLAN_LEN);
            let again = Plan::from_toml(&written).unwrap_or_else(|error| panic!("{written}: {error}"));
            assert_eq!(again, plan, "{written}");
            assert_eq!(again.to_toml(), written, "a plan has one spelling");
            assert!(plan.changes(&again).is_empty());
            check_sets(&plan);
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::PlanInvalid);
            for sentence in [error.to_string(), error.hint().to_owned()] {
                assert!((1..=512).contains(&sentence.len()), "{} bytes: {sentence}", sentence.len());
                assert!(!sentence.chars().any(char::is_control), "a terminal would act on {sentence:?}");
            }
        }
    }
}

fn check_sets(plan: &Plan) {
    assert!((2..=MAX_MEMBERS).contains(&plan.members.len()) && plan.edges.len() <= MAX_EDGES);
    assert!(plan.members.is_sorted_by(|one, next| one.identifier < next.identifier));
    assert!(plan.edges.is_sorted_by(|one, next| one < next));
    for edge in &plan.edges {
        assert!(edge.from != edge.to && plan.joins(&edge.from, &edge.to) && plan.joins(&edge.to, &edge.from));
        let [from, to] = [&edge.from, &edge.to].map(|end| plan.member(end).expect("an edge joins members"));
        assert_eq!(from.curve, to.curve);
        assert!(!plan.losses(&edge.from, &edge.to).is_empty());
    }
}
