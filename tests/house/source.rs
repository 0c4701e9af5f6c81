//! Rust source, read just far enough to know which paths it names.
//!
//! Comments, string and character literals and `#[cfg(test)]` items are not counted. Names are resolved inside one file: `super::`,
//! `self::` and what a `use` of the same file brought in. Macros are not expanded; what they are given is read like any other source.

use std::collections::HashMap;

/// A path that a source file names, resolved as far as the file alone tells: `["crate", "store", "Store"]`, `["std", "fs"]`.
/// The keywords `async` and `await` count as paths of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// Line, from 1.
    pub(crate) line: usize,
    /// The parts; a glob's last part is `*`.
    pub(crate) path: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Word(String),
    Colons,
    Mark(char),
}

type Token = (usize, Kind);

/// The paths named in `text`, the source of module `module` (`["noise", "knock"]` for `src/noise/knock.rs`, none for a crate root).
pub(crate) fn paths(text: &str, module: &[&str]) -> Vec<Named> {
    let tokens = without_tests(&lex(text));
    let mut reader = Reader { tokens: &tokens, at: 0, module: module.iter().map(|part| part.to_string()).collect() };
    let (imports, mut named) = reader.read();
    let aliases: HashMap<&str, &[String]> =
        imports.iter().map(|(_, path, alias)| (alias.as_str(), path.as_slice())).collect();
    for name in &mut named {
        if let (Some(start), true) = (aliases.get(name.path[0].as_str()), name.path.len() > 1) {
            name.path.splice(..1, start.iter().cloned());
        }
    }
    named.extend(imports.iter().map(|(line, path, _)| Named { line: *line, path: path.clone() }));
    named.sort_by_key(|name| name.line);
    named
}

/// The modules that `text` declares in files of their own directly under the attribute `gate`, as rustfmt writes it.
pub(crate) fn gated<'a>(text: &'a str, gate: &str) -> Vec<&'a str> {
    let lines: Vec<&str> = text.lines().collect();
    let declared = |pair: &[&'a str]| {
        let declaration = pair[1].strip_prefix("pub(crate) ").or(pair[1].strip_prefix("pub ")).unwrap_or(pair[1]);
        declaration.strip_prefix("mod ")?.strip_suffix(';').filter(|_| pair[0] == gate)
    };
    lines.windows(2).filter_map(declared).collect()
}

/// The names that a crate root re-exports with `pub use`, each with the top-level module it comes from.
pub(crate) fn reexports(root: &str) -> HashMap<String, String> {
    let tokens = without_tests(&lex(root));
    let mut reader = Reader { tokens: &tokens, at: 0, module: Vec::new() };
    let (imports, _) = reader.read();
    let module = |path: &[String]| path.get(usize::from(path[0] == "crate")).cloned();
    imports.into_iter().filter_map(|(_, path, alias)| Some((alias, module(&path)?))).collect()
}

fn lex(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut line, mut tokens) = (0, 1, Vec::new());
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    while at < chars.len() {
        let (start, first) = (at, chars[at]);
        if first == '/' && peek(at + 1) == '/' {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if first == '/' && peek(at + 1) == '*' {
            let mut depth = 0;
            while at < chars.len() {
                match (chars[at], peek(at + 1)) {
                    ('/', '*') => (depth, at) = (depth + 1, at + 2),
                    ('*', '/') => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
                if depth == 0 {
                    break;
                }
            }
        } else if first.is_alphanumeric() || first == '_' {
            while peek(at).is_alphanumeric() || peek(at) == '_' {
                at += 1;
            }
            let word: String = chars[start..at].iter().collect();
            let hashes = (at..).take_while(|&next| peek(next) == '#').count();
            if matches!(word.as_str(), "r" | "br" | "cr") && peek(at + hashes) == '"' {
                let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                at += hashes + 1;
                while at < chars.len() && !chars[at..].starts_with(&end) {
                    at += 1;
                }
                at += end.len();
            } else if word == "r" && hashes == 1 {
                at += 1; // a raw identifier: its name is the next word
            } else {
                let prefixes_a_literal = matches!(word.as_str(), "b" | "c") && matches!(peek(at), '"' | '\'');
                if !first.is_numeric() && !prefixes_a_literal {
                    tokens.push((line, Kind::Word(word)));
                }
            }
        } else if first == '"' || (first == '\'' && (peek(at + 1) == '\\' || peek(at + 2) == '\'')) {
            at += 1;
            while at < chars.len() && chars[at] != first {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if first == '\'' {
            at += 1; // a lifetime: its name is dropped with the mark
            while peek(at).is_alphanumeric() || peek(at) == '_' {
                at += 1;
            }
        } else if first == ':' && peek(at + 1) == ':' {
            tokens.push((line, Kind::Colons));
            at += 2;
        } else {
            if !first.is_whitespace() {
                tokens.push((line, Kind::Mark(first)));
            }
            at += 1;
        }
        line += chars[start..at.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// Leaves out every item under an attribute `#[cfg(…test…)]` that does not say `not`.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        match attribute_end(tokens, at) {
            Some(end) if is_test(&tokens[at..end]) => at = item_end(tokens, end),
            Some(end) => {
                kept.extend_from_slice(&tokens[at..end]);
                at = end;
            }
            None => {
                kept.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    kept
}

fn mark(tokens: &[Token], at: usize, wanted: char) -> bool {
    matches!(tokens.get(at), Some((_, Kind::Mark(mark))) if *mark == wanted)
}

fn word(tokens: &[Token], at: usize) -> Option<&str> {
    match tokens.get(at) {
        Some((_, Kind::Word(word))) => Some(word),
        _ => None,
    }
}

fn attribute_end(tokens: &[Token], at: usize) -> Option<usize> {
    (mark(tokens, at, '#') && mark(tokens, at + 1, '[')).then(|| closing(tokens, at + 1))
}

/// One past the mark that closes the group opened at `at`.
fn closing(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        match tokens[at].1 {
            Kind::Mark('(' | '[' | '{') => depth += 1,
            Kind::Mark(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    at
}

fn is_test(attribute: &[Token]) -> bool {
    let has = |wanted| (0..attribute.len()).any(|at| word(attribute, at) == Some(wanted));
    word(attribute, 2) == Some("cfg") && has("test") && !has("not")
}

fn item_end(tokens: &[Token], mut at: usize) -> usize {
    while let Some(end) = attribute_end(tokens, at) {
        at = end;
    }
    // A field or an arm ends at a comma, where an item may hold one between angle brackets.
    let item =
        ["pub", "mod", "use", "fn", "impl", "struct", "enum", "const", "static", "type", "trait", "async", "let"];
    let comma_ends = !word(tokens, at).is_some_and(|word| item.contains(&word));
    while at < tokens.len() {
        match tokens[at].1 {
            Kind::Mark(';') => return at + 1,
            Kind::Mark(',') if comma_ends => return at + 1,
            Kind::Mark('{') => return closing(tokens, at),
            Kind::Mark('(' | '[') => at = closing(tokens, at),
            Kind::Mark('}') => return at,
            _ => at += 1,
        }
    }
    at
}

/// Line, path and the name it has in the file.
type Import = (usize, Vec<String>, String);

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    /// The module being read, inline modules included.
    module: Vec<String>,
}

impl Reader<'_> {
    fn read(&mut self) -> (Vec<Import>, Vec<Named>) {
        let (mut imports, mut named) = (Vec::new(), Vec::new());
        // Whether each open brace is an inline module's.
        let mut braces = Vec::new();
        while self.at < self.tokens.len() {
            let (line, kind) = &self.tokens[self.at];
            match kind {
                Kind::Word(keyword) if keyword == "use" && !mark(self.tokens, self.at + 1, '<') => {
                    self.at += 1;
                    self.tree(Vec::new(), &mut imports);
                }
                Kind::Word(keyword) if keyword == "mod" && mark(self.tokens, self.at + 2, '{') => {
                    self.module.push(word(self.tokens, self.at + 1).unwrap_or_default().into());
                    braces.push(true);
                    self.at += 3;
                }
                Kind::Word(first) => {
                    let mut path = vec![first.clone()];
                    self.at += 1;
                    while let (Some((_, Kind::Colons)), Some(next)) =
                        (self.tokens.get(self.at), word(self.tokens, self.at + 1))
                    {
                        path.push(next.into());
                        self.at += 2;
                    }
                    if path.len() > 1 || matches!(first.as_str(), "async" | "await") {
                        named.push(Named { line: *line, path: self.resolve(path) });
                    }
                }
                Kind::Mark(mark) => {
                    match mark {
                        '{' => braces.push(false),
                        '}' if braces.pop() == Some(true) => drop(self.module.pop()),
                        _ => {}
                    }
                    self.at += 1;
                }
                Kind::Colons => self.at += 1,
            }
        }
        (imports, named)
    }

    /// A use tree: `a::{b, c as d, e::*}`.
    fn tree(&mut self, mut path: Vec<String>, imports: &mut Vec<Import>) {
        let line = self.tokens.get(self.at).map_or(0, |token| token.0);
        loop {
            match self.tokens.get(self.at) {
                Some((_, Kind::Word(part))) => path.push(part.clone()),
                Some((_, Kind::Mark('*'))) => path.push("*".into()),
                Some((_, Kind::Colons)) => {}
                Some((_, Kind::Mark('{'))) => {
                    self.at += 1;
                    while self.at < self.tokens.len() && !mark(self.tokens, self.at, '}') {
                        self.tree(path.clone(), imports);
                        self.at += usize::from(mark(self.tokens, self.at, ','));
                    }
                    self.at += 1;
                    return;
                }
                _ => break,
            }
            self.at += 1;
            if word(self.tokens, self.at) == Some("as") {
                break;
            }
        }
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let mut alias = path.last().cloned().unwrap_or_default();
        if word(self.tokens, self.at) == Some("as") {
            alias = word(self.tokens, self.at + 1).unwrap_or_default().into();
            self.at += 2;
        }
        if path.is_empty() {
            self.at += 1; // not a use tree: do not stand still
        } else {
            imports.push((line, self.resolve(path), alias));
        }
    }

    /// Turns `super::` and `self::` into `crate::…`.
    fn resolve(&self, path: Vec<String>) -> Vec<String> {
        let up = path.iter().take_while(|part| matches!(part.as_str(), "super" | "self")).count();
        if up == 0 {
            return path;
        }
        let supers = path[..up].iter().filter(|part| *part == "super").count();
        let base = &self.module[..self.module.len().saturating_sub(supers)];
        std::iter::once("crate").chain(base.iter().chain(&path[up..]).map(String::as_str)).map(Into::into).collect()
    }
}
