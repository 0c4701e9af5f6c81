//! `claviger-bench`: see `scripts/bench --help`.

use clap::Parser;
use claviger_bench::report::Report;
use claviger_bench::rows::ROWS;
use claviger_bench::worker::Worker;
use claviger_bench::{Options, Result, about, plot};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Measures claviger beside what people use otherwise, in alternating runs, and prints a table with ratios and targets.
#[derive(Parser)]
#[command(name = "scripts/bench", args_conflicts_with_subcommands = true)]
struct Arguments {
    /// The rows to measure. Default: all; `--list` names them.
    rows: Vec<String>,
    /// Short runs.
    #[arg(long)]
    quick: bool,
    /// Names the rows.
    #[arg(long)]
    list: bool,
    /// Prints everything as JSON.
    #[arg(long, conflicts_with_all = ["markdown", "docs"])]
    json: bool,
    /// Prints the tables in Markdown.
    #[arg(long, conflicts_with = "docs")]
    markdown: bool,
    /// Writes the tables into DIR/performance.md, between its two marks, and the pictures beside it into DIR/performance.
    #[arg(long, value_name = "DIR")]
    docs: Option<PathBuf>,
    /// Measures nothing: takes what `--json` printed before, one run after the other. `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rows", "quick"])]
    from: Vec<PathBuf>,
    #[command(subcommand)]
    worker: Option<Worker>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(worker) = arguments.worker {
        return worker.run();
    }
    let mut out = std::io::stdout().lock();
    if arguments.list {
        for row in ROWS {
            writeln!(out, "{:10} {}", row.name, row.about)?;
        }
        return Ok(());
    }
    if let Some(unknown) = arguments.rows.iter().find(|name| ROWS.iter().all(|row| row.name != **name)) {
        return Err(format!("no row is called {unknown}; `--list` names them").into());
    }
    let mut before = Vec::new();
    for file in &arguments.from {
        before.push(serde_json::from_str(&read(file)?)?);
    }
    let report = before.into_iter().reduce(Report::followed_by).unwrap_or_else(|| measure(&arguments));
    if let Some(dir) = &arguments.docs {
        write_docs(dir, &report)?;
    }
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else if arguments.markdown {
        write!(out, "{}", report.markdown())?;
    } else {
        write!(out, "{}", report.text())?;
    }
    Ok(())
}

fn measure(arguments: &Arguments) -> Report {
    let options = Options { quick: arguments.quick };
    let mut report = Report { about: about::about(), ..Report::default() };
    let wanted = |name: &str| arguments.rows.is_empty() || arguments.rows.iter().any(|row| row == name);
    for row in ROWS.iter().filter(|row| wanted(row.name)) {
        row.run(&options, &mut report);
    }
    report
}

fn read(file: &Path) -> Result<String> {
    if file == Path::new("-") {
        return Ok(std::io::read_to_string(std::io::stdin())?);
    }
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()).into())
}

/// What stands around the tables in docs/performance.md.
const MARKS: [&str; 2] = ["<!-- scripts/bench: begin -->\n", "<!-- scripts/bench: end -->"];

fn write_docs(dir: &Path, report: &Report) -> Result<()> {
    let page = dir.join("performance.md");
    let text = read(&page)?;
    let parts = text.split_once(MARKS[0]).and_then(|(before, rest)| Some((before, rest.split_once(MARKS[1])?.1)));
    let (before, after) = parts.ok_or_else(|| format!("{} has not the marks {MARKS:?}", page.display()))?;
    std::fs::write(&page, format!("{before}{}{}{}{after}", MARKS[0], report.markdown(), MARKS[1]))?;
    let pictures = dir.join("performance");
    std::fs::create_dir_all(&pictures)?;
    for (name, picture) in plot::all(report) {
        std::fs::write(pictures.join(name), picture)?;
    }
    Ok(())
}
