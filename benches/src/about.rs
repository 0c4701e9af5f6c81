//! The machine and the versions, as far as they say something about what is measured.

use std::process::Command;

/// The crates that are compared, whose versions are those of the lock file.
const CRATES: [&str; 7] = ["aws-lc-rs", "ring", "snow", "rustls", "tokio-rustls", "tokio", "yamux"];

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    // ssh and stunnel say it on stderr.
    let said = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&said);
    text.lines()
        .map(|line| line.trim_start_matches("[ ] ").trim())
        .find(|line| line.contains(|c: char| c.is_ascii_digit()))
        .map(Into::into)
}

fn processor() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let flags = field("flags")?;
    let has = |wanted: &str| flags.split(' ').any(|flag| flag == wanted);
    let extensions = ["vaes", "avx512f", "avx512ifma", "sha_ni", "hypervisor"].into_iter().filter(|flag| has(flag));
    let extensions: Vec<&str> = extensions.collect();
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let (model, family, number) = (field("model name")?, field("cpu family")?, field("model\t")?);
    Some(format!("{model} (family {family}, model {number}), {cores} cores, {}", extensions.join(" ")))
}

fn crates() -> String {
    let lock = include_str!("../../Cargo.lock");
    let version = |name: &str| {
        let (_, after) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        Some(format!("{name} {}", after.split('"').next()?))
    };
    CRATES.into_iter().filter_map(version).collect::<Vec<_>>().join(", ")
}

/// Name and value of everything that is worth telling.
pub fn about() -> Vec<(String, String)> {
    let read = |path: &str| Some(std::fs::read_to_string(path).ok()?.trim().to_owned());
    let found = [
        ("date", first_line("date", &["-u", "+%F %H:%M UTC"])),
        ("commit", first_line("git", &["describe", "--always", "--dirty"])),
        ("processor", processor()),
        ("kernel", read("/proc/sys/kernel/osrelease")),
        ("load", read("/proc/loadavg").map(|load| format!("{} before the run", load.split(' ').next().unwrap_or("")))),
        ("rustc", first_line("rustc", &["--version"])),
        ("crates", Some(crates())),
        ("stunnel", first_line("stunnel4", &["-version"])),
        ("spiped", first_line("spiped", &["-v"])),
        ("ssh", first_line("ssh", &["-V"])),
        ("tor", first_line("tor", &["--version"])),
    ];
    found.into_iter().filter_map(|(name, value)| Some((name.into(), value?))).collect()
}
