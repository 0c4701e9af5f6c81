//! `claviger-bench`: see `scripts/bench --help`.

use clap::Parser;
use claviger_bench::report::Report;
use claviger_bench::rows::ROWS;
use claviger_bench::worker::Worker;
use claviger_bench::{Options, Result};
use std::io::Write as _;

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
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Prints the tables in Markdown.
    #[arg(long)]
    markdown: bool,
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
    let options = Options { quick: arguments.quick };
    let mut report = Report::default();
    for row in ROWS.iter().filter(|row| arguments.rows.is_empty() || arguments.rows.iter().any(|name| name == row.name))
    {
        row.run(&options, &mut report);
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
