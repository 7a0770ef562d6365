//! The published JSON shape, version 1: every field is there, unknown is null.

use serde_json::Value;

/// Objects of an event by their pointer, with the fields each must have. An object may be null where
/// `true`.
const EVENT: &[(&str, bool, &[&str])] = &[
    (
        "",
        false,
        &[
            "v",
            "kind",
            "time",
            "cause",
            "reason",
            "reason_code",
            "reason_subsystem",
            "location",
            "packet",
            "direction",
            "netns",
            "container",
            "interface",
            "process",
            "source",
            "destination",
            "evidence",
            "stack",
        ],
    ),
    ("/cause", false, &["id", "title", "class", "confidence", "why"]),
    ("/location", false, &["symbol", "offset", "module"]),
    (
        "/packet",
        true,
        &["family", "proto", "src", "sport", "dst", "dport", "len", "segments", "tcp_flags", "icmp", "inner"],
    ),
    ("/netns", true, &["inode", "cookie", "name"]),
    ("/interface", true, &["index", "name"]),
    ("/process", true, &["pid", "comm", "evidence"]),
];

/// Numbers of a summary.
const SUMMARY: &[&str] = &[
    "total",
    "seen",
    "shown",
    "hidden",
    "lost",
    "counted_only",
    "filtered",
    "undecidable",
    "missed",
    "refusals",
];

/// What is wrong with a `drop` event, if anything.
pub fn check_event(event: &Value) -> Result<(), String> {
    for (pointer, nullable, fields) in EVENT {
        let Some(object) = event.pointer(pointer) else { return Err(format!("{pointer} is absent")) };
        if object.is_null() && *nullable {
            continue;
        }
        require(object, fields).map_err(|why| format!("{pointer}: {why}"))?;
    }
    one_of(event, "/cause/class", &["harmful", "suspect", "benign"])?;
    one_of(event, "/cause/confidence", &["observed", "inferred"])?;
    if !event["direction"].is_null() {
        one_of(event, "/direction", &["in", "out", "forward"])?;
    }
    event["time"]
        .as_str()
        .and_then(|time| time.parse::<jiff::Timestamp>().ok())
        .map(drop)
        .ok_or_else(|| format!("time is not RFC 3339: {}", event["time"]))
}

/// What is wrong with a `harm` line, if anything.
pub fn check_harm(line: &Value) -> Result<(), String> {
    require(line, &["v", "kind", "time", "what", "packet", "netns", "container", "after_s", "drop"])?;
    require(&line["packet"], &["family", "proto", "src", "sport", "dst", "dport", "len", "tcp_flags"])?;
    require(&line["netns"], &["inode", "cookie", "name"])?;
    require(&line["drop"], &["cause", "time"])?;
    one_of(line, "/what", &["retransmit", "synack-retransmit", "reset-sent", "reset-received"])
}

/// What is wrong with a `refusal` event, if anything: it has the shape of a drop, without a place in the kernel.
pub fn check_refusal(event: &Value) -> Result<(), String> {
    let mut placed = event.clone();
    for null in ["reason", "reason_code", "reason_subsystem", "location", "interface", "stack"] {
        if !event[null].is_null() {
            return Err(format!("{null} is not null"));
        }
    }
    placed["location"] = serde_json::json!({"symbol": null, "offset": null, "module": null});
    require(&event["evidence"]["call"], &["name", "errno"])?;
    check_event(&placed)
}

/// What is wrong with a summary, if anything; the sums of design must hold in every one.
pub fn check_summary(summary: &Value) -> Result<(), String> {
    require(summary, SUMMARY)?;
    require(summary, &["elapsed_s", "causes", "netns", "harm", "refused"])?;
    let number = |name: &str| summary[name].as_u64().ok_or_else(|| format!("{name} is not a count"));
    let sum = |names: &[&str]| names.iter().map(|name| number(name)).sum::<Result<u64, _>>();
    for (whole, parts) in [
        ("total", ["seen", "filtered", "undecidable", "missed"]),
        ("seen", ["shown", "hidden", "lost", "counted_only"]),
    ] {
        if number(whole)? != sum(&parts)? {
            return Err(format!("{whole} is not the sum of {parts:?}"));
        }
    }
    let refused = &summary["refused"];
    let parts = ["shown", "hidden", "lost", "counted_only"];
    let sum = parts.iter().filter_map(|part| refused[part].as_u64()).sum::<u64>();
    if number("refusals")? != sum {
        return Err(format!("refusals are not the sum of {parts:?} in refused"));
    }
    for (list, fields) in
        [("causes", &["id", "class", "count"][..]), ("netns", &["inode", "cookie", "name", "count"])]
    {
        let rows = summary[list].as_array().ok_or_else(|| format!("{list} is not an array"))?;
        rows.iter().try_for_each(|row| require(row, fields).map_err(|why| format!("{list}: {why}")))?;
        let counted: u64 = rows.iter().filter_map(|row| row["count"].as_u64()).sum();
        let seen = number("seen")? + number("refusals")?;
        if counted != seen {
            return Err(format!("{list} add up to {counted}, seen and refusals to {seen}"));
        }
    }
    Ok(())
}

/// Requires that `object` has every field, null or not.
fn require(object: &Value, fields: &[&str]) -> Result<(), String> {
    match fields.iter().find(|field| object.get(field).is_none()) {
        Some(missing) => Err(format!("{missing} is absent")),
        None => Ok(()),
    }
}

/// Requires one of a few words.
fn one_of(event: &Value, pointer: &str, words: &[&str]) -> Result<(), String> {
    let word = event.pointer(pointer).and_then(Value::as_str);
    match word {
        Some(word) if words.contains(&word) => Ok(()),
        other => Err(format!("{pointer} is {other:?}, not one of {words:?}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn summary() -> Value {
        json!({"v":1,"kind":"summary","total":9,"seen":6,"shown":3,"hidden":1,"lost":1,"counted_only":1,
            "filtered":1,"undecidable":1,"missed":1,"refusals":0,"harm":null,"elapsed_s":0.5,
            "refused":{"shown":0,"hidden":0,"lost":0,"counted_only":0},
            "causes":[{"id":"a","class":"benign","count":2},{"id":"b","class":"harmful","count":4}],
            "netns":[{"inode":1,"cookie":2,"name":null,"count":6}]})
    }

    #[test]
    fn a_summary_that_adds_up_passes() {
        assert_eq!(check_summary(&summary()), Ok(()));
    }

    #[test]
    fn sums_that_do_not_hold_are_found() {
        for (pointer, part) in [("/total", "total"), ("/hidden", "seen"), ("/causes/0/count", "causes")] {
            let mut wrong = summary();
            *wrong.pointer_mut(pointer).expect("the pointer is in the sample") = json!(77);
            let why = check_summary(&wrong).expect_err("a wrong sum must be found");
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn absent_fields_are_found() {
        let mut wrong = summary();
        wrong.as_object_mut().expect("a summary is an object").remove("missed");
        assert_eq!(check_summary(&wrong), Err("missed is absent".to_owned()));
    }
}
