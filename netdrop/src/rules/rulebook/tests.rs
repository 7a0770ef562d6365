use super::*;

#[test]
fn an_allowance_runs_out_and_comes_back() {
    let mut allowance = Allowance::new(PATIENCE, WAITING);
    let mut told = Vec::new();
    allowance.spend(allowance.counted, |left| told.push(left));
    allowance.left = Duration::ZERO;
    allowance.spend(allowance.counted, |left| told.push(left));
    allowance.left = Duration::ZERO;
    allowance.spend(allowance.counted + PATIENCE * WAITING, |left| told.push(left));
    assert_eq!(told, [PATIENCE, Duration::ZERO, PATIENCE]);
}

#[test]
fn a_namespace_that_cannot_be_opened_is_asked_again_later() {
    let packet = Packet::default();
    let place = Place { family: "ip", hook: "input", device: None, bridged: false };
    let question = Question {
        place,
        dropper: Dropper::Any,
        packet: &packet,
        rejected: false,
        time_ns: 1,
        observed: None,
    };
    let mut rulebook = Rulebook::new(false);
    let id = NetnsId { cookie: 1, inode: 2 };
    assert_eq!(rulebook.ask(id, &question, || None), None);
    let page = &rulebook.pages[&id];
    assert!(page.coming.is_none() && page.soon.is_some() && page.due == page.soon);
}
