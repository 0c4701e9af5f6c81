//! Cards as QR codes, several in a file or picture, and other people's programs that write and read them.

use std::fs;
use std::io::Cursor;
use std::process::Command;

use claviger::ceremony::parts;
use claviger_testkit::cards::{self, Card, PIN, Pcscd};
use image::imageops::{FilterType, resize, rotate90};
use image::{GrayImage, ImageFormat, Luma};
use rexpect::session::spawn_command;

use crate::lab::{Lab, PROGRAM, snapshot};
use crate::plan::mesh;
use crate::prompts::{ended, type_at};

impl Lab {
    fn image(&self, name: &str) -> GrayImage {
        image::open(self.path(name)).unwrap().into_luma8()
    }

    pub(crate) fn save(&self, name: &str, image: &GrayImage) {
        let mut bytes = Vec::new();
        let format = if name.ends_with("jpg") { ImageFormat::Jpeg } else { ImageFormat::Png };
        image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        self.write(name, bytes);
    }

    /// The program of others that makes QR codes.
    pub(crate) fn qrencode(&self, file: &str, text: &str) {
        self.write("text", text);
        let made = Command::new("qrencode")
            .args(["-8", "-s", "4", "-r", "text", "-o", file])
            .current_dir(self.path(""))
            .status();
        assert!(made.unwrap().success());
    }

    /// Imports with the fingerprints of these machines, and gives the names that were recorded or were there.
    fn imported(&self, store: &str, files: &[&str], machines: &[&str]) -> Vec<String> {
        let words: Vec<String> = machines.iter().map(|machine| self.words(machine)).collect();
        let mut arguments = [&["--store", store, "import"], files].concat();
        words.iter().for_each(|words| arguments.extend(["--fingerprint", words]));
        let imported = self.json(&arguments)["imported"].clone();
        imported.as_array().unwrap().iter().map(|one| one["identifier"].as_str().unwrap().to_owned()).collect()
    }
}

/// Without what differs between a sealed store and one that is not.
fn plain(text: &str) -> String {
    text.lines()
        .filter(|line| !line.contains("Warning: the store is not sealed"))
        .fold(String::new(), |all, line| all + line + "\n")
}

#[test]
fn cards_travel_as_pictures() {
    let lab = Lab::new();
    for (name, curve) in [("wallet", "x25519"), ("cosigner", "x25519"), ("watchtower", "x25519")] {
        lab.machine(name, curve, &[]);
    }
    let words = lab.words("cosigner");
    let text = lab.transcript(&[
        &["--store", "cosigner", "export", "--png", "cosigner.png"],
        &["--store", "cosigner", "export", "--png", "cosigner.png", "--svg", "cosigner.svg", "again.card", "--json"],
        &["--store", "cosigner", "export", "--svg", "-", "--quiet"],
    ]);
    let svg = lab.read("cosigner.svg");
    assert!(
        text.contains(svg.lines().nth(3).unwrap())
            && svg.contains(&format!("<title>Identity card of cosigner: {words}</title>"))
    );
    let without =
        text.lines().filter(|line| !line.contains("<path") && !line.contains("<svg")).collect::<Vec<_>>().join("\n");
    snapshot("qr-export", &without.replace(&words, "WORDS"));
    assert_eq!(fs::read(lab.path("again.card")).unwrap(), lab.read("cosigner.card").as_bytes());

    // As it is, through stdin, as a JPEG, turned and smaller.
    assert_eq!(lab.imported("wallet", &["cosigner.png"], &["cosigner"]), ["cosigner"]);
    let piped =
        lab.run_with(&["--store", "wallet", "import", "-", "--json"], &fs::read(lab.path("cosigner.png")).unwrap());
    assert!(String::from_utf8(piped.stdout).unwrap().contains("already-there"));
    let image = lab.image("cosigner.png");
    lab.save("cosigner.jpg", &image);
    let turned = rotate90(&image);
    lab.save("turned.png", &resize(&turned, turned.width() / 2, turned.height() / 2, FilterType::Triangle));
    assert_eq!(lab.imported("wallet", &["cosigner.jpg", "turned.png"], &["cosigner"]), ["cosigner"]);

    // Two in one picture; two in one text, through stdin.
    lab.ok(&["--store", "watchtower", "export", "--png", "watchtower.png"]);
    let other = lab.image("watchtower.png");
    let mut both =
        GrayImage::from_pixel(image.width() + other.width(), image.height().max(other.height()), Luma([255]));
    image::imageops::replace(&mut both, &image, 0, 0);
    image::imageops::replace(&mut both, &other, image.width().into(), 0);
    lab.save("both.jpg", &both);
    assert_eq!(lab.imported("wallet", &["both.jpg"], &["cosigner", "watchtower"]), ["cosigner", "watchtower"]);
    let two = lab.read("watchtower.card") + "\n" + &lab.read("cosigner.card");
    let piped = lab.run_with(&["--store", "wallet", "import", "-"], two.as_bytes());
    snapshot("qr-several", &plain(&String::from_utf8(piped.stderr).unwrap()));
}

#[test]
fn others_read_and_write_them() {
    let lab = Lab::new();
    lab.machine("wallet", "x25519", &[]);
    lab.machine("curved", "p256", &[]);
    lab.machine("cosigner", "p256", &[]);
    for name in ["wallet", "curved"] {
        lab.ok(&["--store", name, "export", "--png", &format!("{name}.png")]);
        let read =
            Command::new("zbarimg").args(["--quiet", "--raw"]).arg(lab.path(&format!("{name}.png"))).output().unwrap();
        assert_eq!(String::from_utf8(read.stdout).unwrap(), lab.read(&format!("{name}.card")) + "\n");
    }
    lab.qrencode("theirs.png", &lab.read("curved.card"));
    assert_eq!(lab.imported("cosigner", &["theirs.png"], &["curved"]), ["curved"]);
}

#[test]
fn parts_come_in_any_order() {
    let lab = Lab::new();
    for name in ["wallet", "cosigner", "watchtower"] {
        lab.machine(name, "x25519", &[]);
    }
    let mut files: Vec<String> = Vec::new();
    for name in ["cosigner", "watchtower"] {
        for (at, part) in parts::split(&lab.read(&format!("{name}.card")), 180).unwrap().iter().enumerate() {
            lab.qrencode(&format!("{name}-{at}.png"), part);
            files.push(format!("{name}-{at}.png"));
        }
    }
    files.reverse();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let id = |text: String| {
        text.split("of the text ").enumerate().fold(String::new(), |all, (at, piece)| match at {
            0 => piece.to_owned(),
            _ => format!("{all}of the text [ID]{}", &piece[8..]),
        })
    };
    let import = |files: &[&str]| id(lab.fails(4, &[&["--store", "wallet", "import"], files].concat()));
    let mut text = import(&files[1..]);
    text += &import(&[files[0], files[2]]);
    text += &import(&["cosigner-0.png", "watchtower-1.png"]);
    snapshot("qr-parts", &text);
    assert_eq!(lab.imported("wallet", &files, &["watchtower", "cosigner"]), ["watchtower", "cosigner"]);
}

/// The card of a YubiKey's key is too long for one code.
#[test]
fn an_attested_card() {
    cards::isolated(|| {
        let lab = Lab::new();
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 12_345_678);
        let pin = lab.write("card.pin", format!("{PIN}\n"));
        let locator = format!("{}?pin-source=file:{pin}", card.locator());
        lab.ok(&["token", "generate", "--curve", "x25519", &locator]);
        lab.write("root.pem", fs::read(card.attestation_root()).unwrap());
        let root = ["--attestation-root", "root.pem"];
        lab.ok(&[&["--store", "a", "init", "--name", "proven", "--role", "cosigner", "--token", &locator], &root[..]]
            .concat());
        lab.machine("wallet", "x25519", &[&["--require-attestation"], &root[..]].concat());
        lab.ok(&["--store", "a", "export", "proven.card", "--png", "proven.png"]);
        assert!(lab.read("proven.card").len() > 1273);
        let image = lab.image("proven.png");
        lab.save("proven.jpg", &image);
        assert_eq!(lab.imported("wallet", &["proven.jpg"], &["a"]), ["proven"]);
        // On a terminal there is room for small parts only, and it is said how many.
        let mut session = on_a_screen(&lab, &["--store", "a", "export", "--qr"]);
        let asked = type_at(&mut session, "Enter to begin, q to end: ", "q");
        assert!(asked.contains("80 columns and 24 rows: that takes "), "{asked}");
        assert_eq!(ended(session).1, 4);
    });
}

fn on_a_screen(lab: &Lab, arguments: &[&str]) -> rexpect::session::PtySession {
    let script = r#"stty echo rows 24 cols 80; exec "$0" "$@""#;
    let command = lab.command("sh", &[&["-c", script, PROGRAM], arguments].concat());
    spawn_command(command, Some(60_000)).unwrap()
}

/// What a screen of half blocks looks like, eight dots a module; `ink`: dark is printed, on white.
fn seen(text: &str, ink: bool) -> GrayImage {
    let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
    let width = lines.iter().map(Vec::len).max().unwrap();
    GrayImage::from_fn(width as u32 * 8, lines.len() as u32 * 16, |x, y| {
        let block = lines[y as usize / 16].get(x as usize / 8).copied().unwrap_or(' ');
        let printed = match block {
            '█' => true,
            '▀' => y % 16 < 8,
            '▄' => y % 16 >= 8,
            _ => false,
        };
        Luma([if printed == ink { 0 } else { 255 }])
    })
}

#[test]
fn a_terminal_shows_them() {
    let lab = Lab::new();
    lab.machine("wallet", "x25519", &[]);
    lab.machine("cosigner", "x25519", &[]);
    // Into a pipe, all at once.
    let output = lab.run_with(&["--store", "cosigner", "export", "--qr"], b"");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().all(|line| line.chars().count() <= 80) && !text.contains('\u{1b}'));
    let screens: Vec<&str> = text.split("\n\n").filter(|screen| !screen.trim().is_empty()).collect();
    let mut files = Vec::new();
    for (at, screen) in screens.iter().enumerate() {
        lab.save(&format!("pipe-{at}.png"), &seen(screen, false));
        files.push(format!("pipe-{at}.png"));
    }
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    assert_eq!(lab.imported("wallet", &files, &["cosigner"]), ["cosigner"]);

    // On a terminal, one a screen, and back once.
    let mut session = on_a_screen(&lab, &["--store", "cosigner", "export", "--qr"]);
    let first = session.exp_string(". Enter for the next, b for the one before, q to end: ").unwrap();
    let (screen, number) = first.rsplit_once('\n').unwrap();
    let count: usize = number.trim().strip_prefix("1 of ").unwrap().parse().unwrap();
    let mut screens = vec![screen.to_owned()];
    for number in 2..=count {
        session.send_line("").unwrap();
        screens.push(session.exp_string(&format!("{number} of {count}. Enter ")).unwrap());
    }
    type_at(&mut session, "b for the one before: ", "b");
    type_at(&mut session, "q to end: ", "");
    type_at(&mut session, "b for the one before: ", "");
    let (shown, code) = ended(session);
    assert!(code == 0 && shown.contains("compare these words"), "{shown}");
    for (at, screen) in screens.iter().enumerate() {
        // rexpect takes every byte for a character.
        let screen = String::from_utf8(screen.chars().map(|byte| byte as u8).collect()).unwrap();
        let ink = "\u{1b}[38;5;16;48;5;231m";
        let rows: Vec<&str> = screen
            .lines()
            .filter_map(|line| line.split_once(ink))
            .map(|(_, row)| row.split('\u{1b}').next().unwrap())
            .collect();
        assert!(rows.len() <= 23 && rows.iter().all(|row| row.chars().count() <= 80), "{screen}");
        lab.save(&format!("screen-{at}.png"), &seen(&rows.join("\n"), true));
    }
    let files: Vec<String> = (0..count).rev().map(|at| format!("screen-{at}.png")).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    assert_eq!(lab.imported("wallet", &files, &["cosigner"]), ["cosigner"]);
}

#[test]
fn what_is_no_card_is_named() {
    let lab = Lab::new();
    for name in ["wallet", "cosigner", "spare"] {
        lab.machine(name, "x25519", &[]);
    }
    lab.ok(&["--store", "cosigner", "export", "--png", "cosigner.png"]);
    lab.qrencode("url.png", "https://example.org/a-very-long-address/of-something/else?entirely");
    lab.qrencode("near.png", "claviger identity card 3\nidentifier: cosigner\n");
    lab.save("blank.png", &GrayImage::from_pixel(400, 300, Luma([255])));
    let png = fs::read(lab.path("cosigner.png")).unwrap();
    lab.write("cut.png", &png[..png.len() / 2]);
    let mut huge = png.clone();
    huge[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    lab.write("huge.png", &huge);
    lab.write("binary.card", [0xff; 300]);
    lab.write("long.card", "x".repeat(1_048_577));
    let card = lab.read("cosigner.card");
    lab.write("two.card", format!("{card}{}", lab.read("spare.card").replace("role: cosigner", "role: wallet")));
    lab.write("between.card", format!("{card}by mail\n{}", lab.read("spare.card")));
    let import = |code, files: &[&str]| lab.fails(code, &[&["--store", "wallet", "import"], files].concat());
    let mut text = String::new();
    for file in ["url.png", "near.png", "blank.png", "cut.png", "binary.card", "long.card", "two.card", "between.card"]
    {
        text += &import(4, &[file]);
    }
    // The checksum of the header is wrong, too; a bomb that is right is a test of the reader.
    text += &import(4, &["huge.png"]);
    text += &import(1, &["absent.png"]);
    text += &import(2, &["cosigner.png", "spare.card", "--fingerprint", "zoo"]);
    // Another machine of that name.
    let token = lab.token("thief");
    let made = lab.ok(&["token", "generate", "--curve", "x25519", &token.uri_with_pin("noise")]);
    lab.ok(&["--store", "thief", "init", "--name", "cosigner", "--role", "cosigner", "--token", made.trim()]);
    lab.ok(&["--store", "thief", "export", "thief.card"]);
    text += &import(4, &["cosigner.png", "thief.card"]);
    snapshot("qr-refused", &text);

    let export = |code, more: &[&str]| lab.fails(code, &[&["--store", "wallet", "export"], more].concat());
    let mut text = export(2, &["-", "--qr"]);
    text += &export(2, &["--png", "-", "--svg", "-"]);
    text += &export(1, &["--png", "cosigner.card"]);
    // Nothing is written when one can not be.
    text += &export(1, &["new.card", "--png", "absent/new.png"]);
    text += &export(1, &["new.card", "--svg", "cosigner.card"]);
    snapshot("qr-export-refused", &text);
}

#[test]
fn a_question_fits_its_screen() {
    let lab = Lab::new();
    for name in ["wallet", "cosigner", "watchtower"] {
        lab.machine(name, "p256", &[]);
    }
    let mut session = on_a_screen(&lab, &["--store", "wallet", "import", "cosigner.card", "watchtower.card"]);
    let shown = session.exp_string("Word ").unwrap();
    let screen: Vec<&str> = shown.lines().skip_while(|line| !line.starts_with("cosigner")).collect();
    assert!(screen.len() <= 23 && screen.iter().all(|line| line.chars().count() <= 80), "{shown}");
    // Two rows of words, of which two differ from run to run, are left out.
    let at = screen.iter().position(|line| line.starts_with("  words ")).unwrap();
    let (rows, stable): (Vec<_>, Vec<_>) =
        screen.iter().enumerate().partition(|(number, _)| (at..at + 2).contains(number));
    let shown: Vec<&str> = rows.iter().flat_map(|(_, row)| row.split_whitespace()).skip(1).collect();
    let words = lab.words("cosigner");
    let hidden = words.split(' ').zip(&shown).filter(|(word, shown)| word != *shown).count();
    assert!(shown.len() == 8 && hidden == 2, "{shown:?}");
    let stable = stable.iter().fold(String::new(), |all, (_, line)| all + line.trim_end() + "\n");
    session.send_control('c').unwrap();
    drop(session);
    snapshot("qr-question", &stable);
}

/// A member without an edge to this machine: its card counts for the phrase, and is told as such.
#[test]
fn a_card_that_is_only_held() {
    let lab = Lab::new();
    let names = ["wallet", "cosigner", "watchtower"];
    for name in names.iter().chain(&["stranger"]) {
        lab.machine(name, "x25519", &[]);
    }
    // wallet with cosigner, cosigner with watchtower.
    lab.write("plan.toml", mesh(&names, ""));
    let words = lab.json(&["plan", "check", "plan.toml"])["fingerprint"]["words"].as_str().unwrap().to_owned();
    lab.ok(&["--store", "wallet", "plan", "record", "plan.toml", "--fingerprint", &words]);
    lab.write("all.card", lab.read("cosigner.card") + &lab.read("watchtower.card"));
    let given = [lab.words("cosigner"), lab.words("watchtower")];
    let import = ["--store", "wallet", "import", "all.card", "--fingerprint", &given[0], "--fingerprint", &given[1]];
    // A stranger among them: nobody is recorded.
    let stranger = lab.words("stranger");
    let with_stranger = [&import[..4], &["stranger.card"], &import[4..], &["--fingerprint", &stranger]].concat();
    let mut text = lab.fails(4, &with_stranger);
    text += &lab.transcript(&[&import]);
    text += &lab.transcript(&[&[&import[..], &["--json"]].concat()]);
    let hidden =
        given.iter().chain([&stranger]).fold(plain(&text), |text, words| text.replace(words.as_str(), "WORDS"));
    snapshot("qr-held", &hidden);
}
