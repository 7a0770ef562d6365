//! What `netdrop explain` answers.

use super::*;

fn explained(name: Option<&str>, json: bool, page: Page) -> anyhow::Result<String> {
    let args = ExplainArgs { name: name.map(str::to_owned), json, markdown: false };
    let mut out = Vec::new();
    explain(&Catalogue::builtin()?, &args, page, &mut out)?;
    Ok(String::from_utf8(out)?)
}

fn text(name: Option<&str>, width: usize) -> String {
    explained(name, false, Page { columns: Some(width), colour: false }).unwrap()
}

#[test]
fn the_list_has_every_cause_and_reads_at_80_and_60_columns() {
    for width in [60, 80] {
        let list = text(None, width);
        for id in Catalogue::builtin().unwrap().ids() {
            assert!(list.lines().any(|line| line.starts_with(&format!("  {id} "))), "{id} at {width}");
        }
        let widest = list.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(width), "{widest:?} columns of {width}");
    }
    let one_line_each = text(None, 80).lines().filter(|line| line.starts_with("     ")).count();
    assert_eq!(one_line_each, 0, "a title is wrapped at 80 columns");
}

#[test]
fn text_keeps_to_the_width_except_for_commands() {
    let commands: Vec<String> = Catalogue::builtin()
        .unwrap()
        .causes()
        .flat_map(|cause| cause.confirm.iter().chain(&cause.fix))
        .flat_map(|step| step.run.lines().map(str::to_owned))
        .collect();
    for id in Catalogue::builtin().unwrap().ids() {
        for width in [60, 80] {
            for line in text(Some(id), width).lines() {
                let fits = line.chars().count() <= width;
                let alone = !line.trim_start().trim_start_matches("- ").contains(' ');
                let command = commands.iter().any(|command| command == line.trim());
                assert!(fits || alone || command, "{id} at {width}: {line}");
            }
        }
    }
}

#[test]
fn a_reason_is_found_however_it_is_spelt() {
    for spelling in ["NO_SOCKET", "no_socket", "SKB_DROP_REASON_NO_SOCKET", "skb_drop_reason_no_socket"] {
        let text = text(Some(spelling), 80);
        assert!(text.starts_with("The drop reason NO_SOCKET leads to:\n  port-closed"), "{text}");
        assert!(text.contains("tcp-accept-queue-full"), "{text}");
        assert!(text.contains("\nport-closed\nNobody listens on this port\n"), "{text}");
    }
    assert!(text(Some("openvswitch:OVS_DROP_METER"), 80).contains("a meter's rate is exceeded"));
}

#[test]
fn a_reason_that_says_nothing_alone_is_unknown() {
    assert!(text(Some("NOT_SPECIFIED"), 80).contains("\nunknown\nNo known cause\n"));
}

#[test]
fn a_symbol_leads_to_its_rules() {
    for symbol in ["ip_error", "ip_error.isra.0"] {
        let text = text(Some(symbol), 80);
        assert!(text.contains("lead to:\n  no-route"), "{text}");
        assert!(text.contains("route error EINVAL"), "{text}");
    }
}

#[test]
fn a_misspelt_name_is_an_error_with_suggestions() {
    let error = explained(Some("port-close"), false, Page { columns: Some(80), colour: false }).unwrap_err();
    let unknown = error.downcast_ref::<UnknownName>().unwrap();
    assert_eq!(unknown.suggestions.first().map(String::as_str), Some("port-closed"));
    assert!(error.to_string().contains("did you mean `port-closed`"), "{error}");
    let error = explained(Some("xyzzy"), true, Page { columns: Some(80), colour: false }).unwrap_err();
    assert!(error.to_string().contains("lists all causes"), "{error}");
}

#[test]
fn json_has_a_version_and_the_whole_entry() {
    let parsed = |name| -> serde_json::Value {
        serde_json::from_str(&explained(name, true, Page { columns: Some(80), colour: false }).unwrap())
            .unwrap()
    };
    let list = parsed(None);
    assert_eq!((&list["v"], &list["kind"]), (&1.into(), &"causes".into()));
    assert!(list["causes"].as_array().unwrap().len() > 50);
    let cause = parsed(Some("no-route"));
    assert_eq!((&cause["v"], &cause["kind"]), (&1.into(), &"cause".into()));
    assert_eq!(cause["cause"]["id"], "no-route");
    assert!(cause["cause"]["fix"][0]["run"].as_str().unwrap().contains("ip route"));
    let reason = parsed(Some("qdisc_drop"));
    assert_eq!((&reason["v"], &reason["kind"]), (&1.into(), &"reason".into()));
    assert_eq!(reason["name"], "QDISC_DROP");
    assert_eq!(reason["cause"]["id"], "qdisc-overlimit");
    let noop = reason["leads_to"].as_array().unwrap().iter().find(|lead| lead["cause"] == "interface-down");
    assert_eq!(noop.unwrap()["rule"]["facts"]["qdisc_kind"][0], "noop");
}

#[test]
fn colour_only_when_asked() {
    assert!(!text(Some("port-closed"), 80).contains('\u{1b}'));
    let coloured = explained(Some("port-closed"), false, Page { columns: Some(80), colour: true }).unwrap();
    assert!(coloured.contains("\u{1b}["));
}

#[test]
fn a_closed_pipe_stays_an_io_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for json in [false, true] {
        let args = ExplainArgs { name: None, json, markdown: false };
        let error = run(&args, Page { columns: None, colour: false }, &mut Closed).unwrap_err();
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        assert_eq!(kind, Some(io::ErrorKind::BrokenPipe), "{error:?}");
    }
}

#[test]
fn markdown_of_everything_of_a_cause_and_of_a_reason() {
    let markdown = |name: Option<&str>| {
        let args = ExplainArgs { name: name.map(str::to_owned), json: false, markdown: true };
        let mut out = Vec::new();
        run(&args, Page { columns: Some(80), colour: true }, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert!(markdown(None).starts_with("# Causes\n"));
    let cause = markdown(Some("port-closed"));
    assert!(cause.starts_with("## port-closed\n\n**Nobody listens on this port**"), "{cause}");
    assert!(cause.contains("*netns* or *device*"), "a single entry explains its marks: {cause}");
    let reason = markdown(Some("NO_SOCKET"));
    assert!(reason.starts_with("# NO\\_SOCKET\n\nThe drop reason `NO_SOCKET` leads to:\n\n"), "{reason}");
    assert!(reason.contains("- **port-closed**: `NO_SOCKET`: suspect, observed\n"), "{reason}");
    assert!(reason.contains("\n## port-closed\n"), "{reason}");
}

#[test]
fn a_symbol_is_found_as_traces_and_sources_write_it() {
    for spelling in
        ["ip_error", "ip_error+0x1f/0x80", "ip_error()", "ip_error.isra.0", "ip_error [ipv4]", " ip_error "]
    {
        let text = text(Some(spelling), 80);
        assert!(text.starts_with("Drops in the kernel function ip_error lead to:\n"), "{spelling}: {text}");
    }
}

#[test]
fn a_reason_of_a_subsystem_is_found_by_the_name_in_its_own_enum() {
    for spelling in ["OVS_DROP_METER", "ovs_drop_meter", "openvswitch:METER", "openvswitch:OVS_DROP_METER"] {
        let text = text(Some(spelling), 80);
        assert!(text.contains("openvswitch:METER: harmful, observed"), "{spelling}: {text}");
    }
    assert!(text(Some("QDISC_DROP_OVERLIMIT"), 80).starts_with("The drop reason qdisc:OVERLIMIT leads to:"));
    assert!(text(Some("QDISC_DROP"), 80).starts_with("The drop reason QDISC_DROP leads to:"));
}

#[test]
fn a_name_that_only_begins_like_a_known_one_gets_suggestions_too() {
    let misspelt = text(Some("tcp_v4_rvc"), 80);
    assert!(misspelt.contains("No rule has exactly this name"), "{misspelt}");
    assert!(misspelt.contains("tcp_v4_rcv"), "{misspelt}");
    assert!(!text(Some("tcp_v4_rcv"), 80).contains("No rule has exactly"));
    let args = ExplainArgs { name: Some("openvswitch:METR".to_owned()), json: true, markdown: false };
    let mut out = Vec::new();
    run(&args, Page { columns: None, colour: false }, &mut out).unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(answer["suggestions"][0], "openvswitch:METER", "{answer}");
}
