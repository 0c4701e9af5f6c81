//! The pictures of `docs/performance.md`, as SVG: lines by record length, and bars.

use crate::report::{Report, Value};
use std::fmt::Write as _;

const FONT: &str = "font-family=\"system-ui, sans-serif\" font-size=\"12\"";
const INK: &str = "#222";
const FAINT: &str = "#ddd";

/// Everybody has one colour in all pictures.
fn colour(subject: &str) -> &'static str {
    match subject {
        name if name.starts_with("claviger") => "#1a5fb4",
        "bare records" | "with a copy" => "#7fb0ea",
        "TCP" | "plain pair" => "#77767b",
        "aws-lc-rs" => "#26a269",
        "ring" => "#8ff0a4",
        "snow" => "#9141ac",
        name if name.starts_with("rustls, ring") => "#ffbe6f",
        name if name.starts_with("rustls") => "#e66100",
        name if name.starts_with("stunnel") => "#a51d2d",
        "spiped" => "#865e3c",
        _ => "#e5a50a",
    }
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{INK}\">{words}</text>");
}

fn svg(width: f64, height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" {FONT}>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

/// The least round number that is not below `value`: one digit by a power of ten, or fifteen.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-9).log10().floor());
    [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|round| *round >= value)
        .unwrap_or(value)
}

/// A panel of lines: `series` are names with a value at each of `labels`.
fn panel(out: &mut String, left: f64, title: &str, labels: &[String], series: &[(&str, Vec<f64>)]) {
    let (width, top, height) = (300.0, 40.0, 260.0);
    let most = round_up(series.iter().flat_map(|(_, values)| values).fold(0.0, |most, value| value.max(most)));
    let x = |at: usize| left + width * at as f64 / (labels.len().max(2) - 1) as f64;
    let y = |value: f64| top + height * (1.0 - value / most);
    text(out, left, top - 16.0, "start", title);
    for step in 0..=5 {
        let value = most * f64::from(step) / 5.0;
        let right = left + width;
        let _ = writeln!(out, "<path d=\"M{left:.1} {0:.1}H{right:.1}\" stroke=\"{FAINT}\"/>", y(value));
        text(out, left - 6.0, y(value) + 4.0, "end", &format!("{value:.1}"));
    }
    for (at, label) in labels.iter().enumerate() {
        text(out, x(at), top + height + 18.0, "middle", label);
    }
    for (name, values) in series {
        let points: Vec<String> =
            values.iter().enumerate().map(|(at, value)| format!("{:.1},{:.1}", x(at), y(*value))).collect();
        let wide = if name.starts_with("claviger") { 5 } else { 1 };
        let (points, colour) = (points.join(" "), colour(name));
        let _ =
            writeln!(out, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{wide}\"/>");
    }
}

/// Sealing by record length, a panel for each cipher.
pub fn records(report: &Report) -> String {
    let values: Vec<&Value> = report.values.iter().filter(|value| value.row == "records").collect();
    let mut out = String::new();
    let mut names: Vec<&str> = Vec::new();
    for (at, cipher) in ["ChaCha20-Poly1305", "AES-256-GCM"].into_iter().enumerate() {
        let prefix = format!("seal {cipher}, ");
        let of: Vec<&&Value> = values.iter().filter(|value| value.case.starts_with(&prefix)).collect();
        let mut labels: Vec<String> = Vec::new();
        for value in &of {
            let label = value.case[prefix.len()..].to_owned();
            if !labels.contains(&label) {
                labels.push(label);
            }
            if !names.contains(&value.subject.as_str()) {
                names.push(&value.subject);
            }
        }
        let line =
            |name: &&'_ str| of.iter().filter(|value| value.subject == **name).map(|value| value.median).collect();
        // Ours is first, and so below the others, and wide.
        let series: Vec<(&str, Vec<f64>)> = names.iter().map(|name| (*name, line(name))).collect();
        panel(&mut out, 50.0 + 360.0 * at as f64, &format!("{prefix}GB/s by record length"), &labels, &series);
    }
    for (at, name) in names.iter().enumerate() {
        let (x, y) = (50.0 + 180.0 * (at % 4) as f64, 345.0 + 20.0 * (at / 4) as f64);
        let _ =
            writeln!(out, "<rect x=\"{x}\" y=\"{}\" width=\"14\" height=\"10\" fill=\"{}\"/>", y - 9.0, colour(name));
        text(&mut out, x + 20.0, y, "start", name);
    }
    svg(730.0, 380.0, &out)
}

/// Bars of a row, those of each case together; whiskers from the lower to the upper quarter of the rounds.
pub fn bars(report: &Report, title: &str, row: &str, unit: &str) -> String {
    let values: Vec<&Value> = report.values.iter().filter(|value| value.row == row && value.unit == unit).collect();
    let most = round_up(values.iter().fold(0.0, |most, value| value.high.max(most)));
    let (left, width, bar) = (200.0, 440.0, 18.0);
    let x = |value: f64| left + width * value / most;
    let mut out = String::new();
    let mut y = 24.0;
    text(&mut out, 12.0, y, "start", &format!("{title}, {unit}"));
    let mut case = "";
    for value in values {
        if value.case != case {
            case = &value.case;
            y += 30.0;
            text(&mut out, 12.0, y, "start", case);
            y += 8.0;
        }
        text(&mut out, left - 8.0, y + 13.0, "end", &value.subject);
        let (wide, fill, middle) = (x(value.median) - left, colour(&value.subject), y + bar / 2.0 - 1.0);
        let _ = writeln!(
            out,
            "<rect x=\"{left}\" y=\"{y}\" width=\"{wide:.1}\" height=\"{}\" fill=\"{fill}\"/>",
            bar - 3.0
        );
        let (low, high) = (x(value.low), x(value.high));
        let _ = writeln!(out, "<path d=\"M{low:.1} {middle}H{high:.1}\" stroke=\"{INK}\"/>");
        text(&mut out, x(value.high.max(value.median)) + 6.0, y + 13.0, "start", &crate::report::number(value.median));
        y += bar;
    }
    svg(730.0, y + 16.0, &out)
}

/// Every picture of the rows that were measured, by file name.
pub fn all(report: &Report) -> Vec<(&'static str, String)> {
    let measured = |row: &str| report.values.iter().any(|value| value.row == row);
    let mut pictures = Vec::new();
    if measured("records") {
        pictures.push(("records.svg", records(report)));
    }
    for (file, title, row, unit) in [
        ("stream.svg", "Loopback TCP", "stream", "GB/s"),
        ("forward.svg", "Through a forwarding pair", "forward", "GB/s"),
        ("echo.svg", "1 KiB to and fro over loopback TCP", "echo", "µs"),
        ("handshake.svg", "Handshakes, both ends on one core", "handshake", "per s and core"),
    ] {
        if measured(row) {
            pictures.push((file, bars(report, title, row, unit)));
        }
    }
    pictures
}
