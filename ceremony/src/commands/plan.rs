//! `plan` and `add`: what was planned, and what has come of it.

mod page;
mod record;
mod report;
mod runbook;
mod show;

use std::path::Path;

use claviger::ceremony::plan::{EXAMPLE_PAIR, EXAMPLE_VAULT, Plan};
use claviger::error::{Error, ErrorKind, Result};
use claviger::program::{Terminal, shown};
use serde::Serialize;

use self::page::{PAGE_BREAK, Page};
use self::runbook::Runbook;
use super::open;
use crate::cli::{Cli, Example, Format, New, Plan as Command, PlanFile, Print};
use crate::files::{Written, read_plan, write_file};

pub(super) fn run(cli: &Cli, command: &Command, terminal: &Terminal) -> Result<()> {
    match command {
        Command::Plan(PlanFile::New(options)) => new(options, terminal),
        Command::Plan(PlanFile::Check { file }) => check(&read_plan(file)?, terminal),
        Command::Plan(PlanFile::Print(options)) => print(options, cli.json, terminal),
        Command::Plan(PlanFile::Record(options)) => record::record(cli, options, terminal),
        Command::Plan(PlanFile::Show { toml }) => show::show(&open(cli)?, *toml, terminal),
        Command::Add(options) => record::add(cli, options, terminal),
    }
}

/// `plan new --json`: `{"file", "outcome"}`; `outcome` is `new` or `already-there`.
#[derive(Serialize)]
struct WrittenFile {
    file: String,
    outcome: &'static str,
}

impl WrittenFile {
    fn write(path: &Path, text: &str, force: bool, terminal: &Terminal) -> Result<Self> {
        let (outcome, told) = match write_file(path, text.as_bytes(), force)? {
            Written::New => ("new", "Wrote"),
            Written::AlreadyThere => ("already-there", "Unchanged:"),
        };
        terminal.note(&format!("{told} {}.", path.display()));
        Ok(Self { file: path.display().to_string(), outcome })
    }
}

fn new(options: &New, terminal: &Terminal) -> Result<()> {
    let text = match options.example {
        Example::Pair => EXAMPLE_PAIR,
        Example::Vault => EXAMPLE_VAULT,
    };
    if options.file == Path::new("-") {
        return terminal.data(text.as_bytes());
    }
    let written = WrittenFile::write(&options.file, text, options.force, terminal)?;
    terminal.note(&format!("Edit it, then check it with `claviger-ceremony plan check {}`.", written.file));
    terminal.result(&format!("{}\n", written.file), &written)
}

fn check(plan: &Plan, terminal: &Terminal) -> Result<()> {
    let warnings = plan.warnings();
    warnings.iter().for_each(|warning| terminal.warn(warning));
    terminal.result(&report::text(plan), &report::Checked::from(plan))
}

/// `plan print --json`: `{"pages": [{"name", "title", "text"}], "files": [{"file", "outcome"}]}`; `text` in the form that was asked for.
#[derive(Serialize)]
struct Printed {
    pages: Vec<PrintedPage>,
    files: Vec<WrittenFile>,
}

#[derive(Serialize)]
struct PrintedPage {
    name: String,
    title: String,
    text: String,
}

fn print(options: &Print, json: bool, terminal: &Terminal) -> Result<()> {
    let Print { file, format, out, force, .. } = options;
    let plan = read_plan(file)?;
    let name = file.file_name().filter(|name| *name != "-").map_or("plan.toml".into(), |name| name.to_string_lossy());
    let name = quoted(&name);
    let pages = chosen(options, &plan, &Runbook::new(&plan, &name))?;
    let render = |page: Page| {
        let text = page.render(*format);
        PrintedPage { name: page.name, title: page.title, text }
    };
    let pages: Vec<PrintedPage> = pages.into_iter().map(render).collect();
    let extension = match format {
        Format::Text => "txt",
        Format::Markdown => "md",
    };
    let files = match out {
        Some(out) if out.is_dir() => {
            let write = |page: &PrintedPage| {
                WrittenFile::write(&out.join(format!("{}.{extension}", page.name)), &page.text, *force, terminal)
            };
            pages.iter().map(write).collect::<Result<_>>()?
        }
        Some(out) if out != Path::new("-") => {
            vec![WrittenFile::write(out, &together(&pages, *format), *force, terminal)?]
        }
        _ => Vec::new(),
    };
    let printed = Printed { pages, files };
    if options.out.as_deref().is_none_or(|out| out == Path::new("-")) && !json {
        // Form feeds are for the printer.
        return terminal.data(together(&printed.pages, *format).as_bytes());
    }
    let files = printed.files.iter().map(|written| format!("{}\n", written.file)).collect::<String>();
    terminal.result(&files, &printed)
}

/// The pages that were asked for.
fn chosen(options: &Print, plan: &Plan, runbook: &Runbook<'_>) -> Result<Vec<Page>> {
    let unknown = |what: String| {
        let hint = format!("See its members and roles with `claviger-ceremony plan check {}`.", shown(&options.file));
        Error::new(ErrorKind::PlanMismatch, format!("The plan \"{}\" has {what}.", plan.name), hint)
    };
    if let Some(name) = &options.member {
        let member = plan.member(name).ok_or_else(|| unknown(format!("no member \"{name}\"")))?;
        return Ok(vec![runbook.member(member)]);
    }
    if let Some(role) = &options.role {
        if !plan.members.iter().any(|member| member.role == *role) {
            return Err(unknown(format!("no member of role \"{role}\"")));
        }
        return Ok(vec![runbook.role(role)]);
    }
    Ok(runbook.pages())
}

fn together(pages: &[PrintedPage], format: Format) -> String {
    let between = match format {
        Format::Text => "\u{c}",
        Format::Markdown => &format!("\n{PAGE_BREAK}\n"),
    };
    pages.iter().map(|page| page.text.as_str()).collect::<Vec<_>>().join(between)
}

/// As a shell takes it.
fn quoted(word: &str) -> String {
    let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    if plain && !word.starts_with('-') { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}
