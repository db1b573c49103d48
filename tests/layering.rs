//! The layers of the source, as the design describes them: a module uses only its own layer and
//! lower ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The layer of a file. A lower layer does not use a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    /// What the operating system gives.
    Sys,
    /// What every backend uses: errors, guards, the future, delays.
    Face,
    /// Events, timers, the steps of the protocol, the lock file, and the identity of this process.
    Watch,
    /// The locks in memory.
    Mem,
    /// The plain lock on a file.
    File,
    /// Pid files and claims.
    Existence,
    /// The fair locks on files.
    Fair,
    /// A directory of locks by name.
    Named,
    /// What the locks of all servers share.
    Lease,
    /// The locks of one server.
    Server,
    /// `lib.rs` and the modules above all backends.
    Root,
}

impl Layer {
    /// The layer of a module, named by its path below the crate: `["fair", "door"]`.
    fn of(module: &[&str]) -> Self {
        match module {
            ["sys", ..] => Self::Sys,
            ["watch" | "step" | "owner" | "path" | "door", ..] => Self::Watch,
            ["mem", ..] => Self::Mem,
            ["fair", ..] => Self::Fair,
            ["file", ..] => Self::File,
            ["existence", ..] => Self::Existence,
            ["named", ..] => Self::Named,
            ["lease", ..] => Self::Lease,
            ["postgres" | "redis", ..] => Self::Server,
            [
                "error" | "backend" | "backoff" | "loss" | "foreign" | "address" | "block"
                | "duration" | "kind" | "wait" | "ledger" | "options" | "lock" | "status" | "guard"
                | "acquire" | "any" | "stats" | "metrics" | "metrics_none" | "token" | "trace",
                ..,
            ] => Self::Face,
            _ => Self::Root,
        }
    }

    fn may_use(self, other: Self) -> bool {
        match self {
            Self::Sys => other == Self::Sys,
            Self::Face => matches!(other, Self::Sys | Self::Face),
            // Locks in memory have no files, and the fair locks are an engine of their own.
            Self::Watch | Self::Mem | Self::Fair => other <= Self::Watch || other == self,
            Self::File | Self::Existence | Self::Named => other <= self && other != Self::Mem,
            // From the platform it needs a clock and the host's name.
            Self::Lease => matches!(other, Self::Sys | Self::Face | Self::Lease),
            Self::Server => matches!(other, Self::Face | Self::Lease | Self::Server),
            Self::Root => true,
        }
    }
}

struct Source {
    /// Relative to `src`, or to `tests/model`, with slashes.
    name: String,
    text: String,
}

impl Source {
    /// The path of its module: `fair/line/mod.rs` is `fair`, `line`.
    fn module(&self) -> Vec<&str> {
        let path = self.name.trim_end_matches(".rs");
        let mut parts: Vec<_> = path.split('/').collect();
        if matches!(parts.last(), Some(&("mod" | "lib"))) {
            parts.pop();
        }
        parts
    }

    /// Returns its lines of code, numbered from 1, without comments and without the tests at its
    /// end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_code = |line: &str| !line.trim_start().starts_with("//");
        let before_tests = self
            .text
            .split("\n#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or(&self.text);
        let numbered = before_tests.lines().enumerate();
        numbered
            .filter(move |(_, line)| is_code(line))
            .map(|(index, line)| (index + 1, line))
    }

    /// Returns every path that starts at the crate or at a parent, made absolute.
    fn paths(&self) -> Vec<(usize, Vec<String>)> {
        let mut found = Vec::new();
        let mut inside = false;
        // A module inside a file that imports all names of the file is no dependency.
        let inner = |line: &str| line.starts_with(' ') && line.trim() == "use super::*;";
        let lines: Vec<_> = self.code().filter(|(_, line)| !inner(line)).collect();
        for (index, &(number, line)) in lines.iter().enumerate() {
            inside = match line {
                "}" => false,
                line => inside || (line.starts_with("mod ") && line.ends_with('{')),
            };
            for start in ["crate::", "super::"] {
                let mut rest = line;
                while let Some(at) = rest.find(start) {
                    let before = rest[..at].chars().next_back();
                    let path = &rest[at..];
                    rest = &rest[at + start.len()..];
                    if before.is_none_or(|it| !it.is_alphanumeric() && it != '_' && it != ':') {
                        let mut later = lines[index + 1..].iter().map(|(_, line)| *line);
                        let paths = expanded(path, &mut later);
                        found.extend(paths.iter().map(|it| (number, self.absolute(it, inside))));
                    }
                }
            }
        }
        found
    }

    /// `inside` means that the path is in a module inside the file.
    fn absolute(&self, path: &str, inside: bool) -> Vec<String> {
        let mut absolute = owned(&self.module());
        absolute.extend(inside.then(|| "inside".to_owned()));
        for word in path.split("::").filter(|word| !word.is_empty()) {
            match word {
                "crate" => absolute.clear(),
                "super" => _ = absolute.pop(),
                "self" => {}
                word => absolute.push(word.to_owned()),
            }
        }
        absolute
    }
}

/// Returns the path at the beginning of a line, or the paths if it ends with a group:
/// `a::{b, c::{d, e}}`. A group may go on in the later lines.
fn expanded<'a>(line: &str, later: &mut impl Iterator<Item = &'a str>) -> Vec<String> {
    let end = line.find(|it: char| !it.is_alphanumeric() && it != '_' && it != ':');
    let (head, rest) = line.split_at(end.unwrap_or(line.len()));
    let Some(group) = rest.strip_prefix('{') else {
        return vec![head.to_owned()];
    };
    let (mut depth, mut members) = (0, vec![String::new()]);
    let characters = group.chars().collect::<Vec<_>>().into_iter();
    for it in characters.chain(later.flat_map(str::chars)) {
        match it {
            '}' if depth == 0 => break,
            ',' if depth == 0 => members.push(String::new()),
            it => {
                depth += i32::from(it == '{') - i32::from(it == '}');
                members.last_mut().expect("never empty").push(it);
            }
        }
    }
    let members = members.iter().map(|it| it.trim());
    let members = members.filter(|it| !it.is_empty());
    let paths = members.flat_map(|it| expanded(it, &mut std::iter::empty()));
    paths.map(|it| format!("{head}{it}")).collect()
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(|&it| it.to_owned()).collect()
}

fn sources() -> Vec<Source> {
    below("src")
}

/// The files of the protocol's model. It is a member of the workspace, and not part of the
/// published package.
fn model() -> Vec<Source> {
    let manifest = include_str!("../Cargo.toml");
    if manifest.lines().any(|line| line == "[workspace]") {
        below("tests/model")
    } else {
        Vec::new()
    }
}

fn below(directory: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                found.push(read(&root, path));
            }
        }
    }
    assert!(found.len() > 20, "the sources are not where they were");
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn read(root: &Path, path: PathBuf) -> Source {
    let text = std::fs::read_to_string(&path).expect("a source file");
    let name = path.strip_prefix(root).expect("below the root");
    let name = name.to_str().expect("a plain name").replace('\\', "/");
    Source { name, text }
}

/// Asserts that there are no complaints, and prints them all.
fn assert_none(complaints: Vec<String>, rule: &str) {
    assert!(
        complaints.is_empty(),
        "{rule}:\n  {}",
        complaints.join("\n  ")
    );
}

/// Returns complaints about lines of code that contain one of these words, outside the files that
/// may.
fn outside(words: &[&str], belongs: impl Fn(&str) -> bool) -> Vec<String> {
    let sources = sources();
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| !belongs(&source.name)) {
        for (number, line) in source.code() {
            if words.iter().any(|word| line.contains(word)) {
                complaints.push(format!("src/{}:{number}: {}", source.name, line.trim()));
            }
        }
    }
    complaints
}

#[test]
fn arrows_point_down_only() {
    let mut complaints = Vec::new();
    for source in sources() {
        let from = Layer::of(&source.module());
        for (number, path) in source.paths() {
            let words: Vec<_> = path.iter().map(String::as_str).collect();
            // What is named directly from the crate's root is public.
            let to = Layer::of(&words);
            if from != Layer::Root && !from.may_use(to) {
                let (name, path) = (&source.name, path.join("::"));
                complaints.push(format!("src/{name}:{number}: {from:?} uses {to:?}: {path}"));
            }
        }
    }
    assert_none(complaints, "forbidden arrows");
}

/// The arrows among the modules in one folder: for each pair, one place in the source.
type Arrows = BTreeMap<(String, String), String>;

/// Returns the arrows among the modules of each folder.
fn arrows(sources: &[Source]) -> BTreeMap<Vec<String>, Arrows> {
    let known: BTreeSet<Vec<String>> = sources.iter().map(|it| owned(&it.module())).collect();
    let mut folders = BTreeMap::<_, Arrows>::new();
    for source in sources {
        let from = owned(&source.module());
        for (number, mut to) in source.paths() {
            while !to.is_empty() && !known.contains(&to) {
                to.pop();
            }
            let alike = from.iter().zip(&to).take_while(|(one, two)| one == two);
            let depth = alike.count();
            if let (Some(one), Some(two)) = (from.get(depth), to.get(depth)) {
                let arrows = folders.entry(from[..depth].to_vec()).or_default();
                let place = format!("src/{}:{number}", source.name);
                arrows.entry((one.clone(), two.clone())).or_insert(place);
            }
        }
    }
    folders
}

/// Returns the modules that can be reached by these arrows.
fn reached(from: &str, arrows: &Arrows) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut next = vec![from.to_owned()];
    while let Some(from) = next.pop() {
        let ends = arrows.keys().filter(|(start, _)| *start == from);
        let ends = ends
            .map(|(_, end)| end)
            .filter(|&it| found.insert(it.clone()));
        next.extend(ends.cloned());
    }
    found
}

/// Returns the circles: sets of modules that all reach each other.
fn circles(arrows: &Arrows) -> BTreeSet<BTreeSet<String>> {
    let starts: BTreeSet<_> = arrows.keys().map(|(start, _)| start).collect();
    let all = starts.into_iter().map(|it| (it, reached(it, arrows)));
    let all: BTreeMap<_, _> = all.collect();
    let returns = |from: &str, to| all.get(to).is_some_and(|it| it.contains(from));
    let found = all.iter().map(|(from, ends)| {
        let circle = ends.iter().filter(|to| returns(from, *to));
        circle.cloned().collect::<BTreeSet<_>>()
    });
    found.filter(|it| !it.is_empty()).collect()
}

#[test]
fn modules_side_by_side_form_no_circle() {
    let mut complaints = Vec::new();
    let mut sources = sources();
    // The program is a crate of its own.
    sources.retain(|it| !it.name.starts_with("bin/"));
    for (folder, arrows) in arrows(&sources) {
        for circle in circles(&arrows) {
            let inside =
                |(one, two): &(String, String)| circle.contains(one) && circle.contains(two);
            let names = circle
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(" ");
            let name = match folder.is_empty() {
                true => names,
                false => format!("{}: {names}", folder.join("::")),
            };
            let parts = arrows.iter().filter(|(arrow, _)| inside(arrow));
            let parts = parts.map(|((one, two), place)| format!("\n    {one} -> {two}: {place}"));
            complaints.push(format!("{name}:{}", parts.collect::<String>()));
        }
    }
    assert_none(complaints, "circles");
}

/// Checks that `arrows_point_down_only` sees the dependencies.
#[test]
fn the_known_arrows_are_seen() {
    let mut arrows = BTreeMap::<(Layer, Layer), usize>::new();
    for source in sources() {
        let from = Layer::of(&source.module());
        for (_, path) in source.paths() {
            let words: Vec<_> = path.iter().map(String::as_str).collect();
            *arrows.entry((from, Layer::of(&words))).or_default() += 1;
        }
    }
    for arrow in [
        (Layer::Watch, Layer::Sys),
        (Layer::Mem, Layer::Face),
        (Layer::Fair, Layer::Watch),
        (Layer::Fair, Layer::Sys),
        (Layer::File, Layer::Watch),
        (Layer::Existence, Layer::File),
        (Layer::Named, Layer::Existence),
        (Layer::Face, Layer::Face),
        (Layer::Lease, Layer::Face),
        (Layer::Lease, Layer::Sys),
        (Layer::Server, Layer::Face),
        (Layer::Server, Layer::Lease),
    ] {
        assert!(arrows.contains_key(&arrow), "{arrow:?} in {arrows:?}");
    }
}

/// So each server could be a crate of its own. The traits of a backend and the errors are public.
#[test]
fn a_server_uses_only_the_seam_and_the_lease_core() {
    let mut complaints = Vec::new();
    let servers = ["postgres", "redis"];
    for source in sources() {
        let Some(&server) = source.module().first().filter(|it| servers.contains(it)) else {
            continue;
        };
        for (number, path) in source.paths() {
            let allowed = [server, "lease", "backend", "error"];
            if !path.first().is_some_and(|it| allowed.contains(&&**it)) {
                let (name, path) = (&source.name, path.join("::"));
                complaints.push(format!("src/{name}:{number}: {path}"));
            }
        }
    }
    assert_none(complaints, "a server uses other parts of the crate");
}

#[test]
fn the_lease_core_knows_no_server() {
    let core = |name: &str| !name.starts_with("lease/");
    let found = outside(&["redis", "Redis", "lua", "Lua", "postgres", "sql"], core);
    assert_none(found, "a server in the lease core");
}

#[test]
fn the_platform_is_asked_about_in_few_places() {
    let belongs = |name: &str| {
        let watch = name.starts_with("watch/") || name == "watch.rs";
        let one = matches!(name, "lib.rs" | "trace.rs" | "step.rs");
        // Each server has TLS only with its feature.
        let one = one || matches!(name, "postgres/mod.rs" | "redis/mod.rs");
        // The set of backends depends on features.
        let one = one || matches!(name, "locks.rs" | "locks/schemes.rs");
        // The command line offers what this build has.
        let one = one || matches!(name, "bin/stanchion/main.rs" | "bin/stanchion/options.rs");
        watch || one || name.starts_with("sys/")
    };
    // `cfg(test)` and `cfg(doc)` alone depend on no platform and no feature. The serialization of a
    // type can only be declared at the type.
    let serialized = |line: &str| line.starts_with("src/status.rs") && line.contains("\"serde\"");
    let found = outside(&["cfg(", "cfg!(", "cfg_attr("], belongs);
    let real = found
        .into_iter()
        .filter(|line| !line.ends_with("#[cfg(test)]") && !line.ends_with("#[cfg(doc)]"))
        .filter(|line| !serialized(line))
        .collect();
    assert_none(real, "`cfg` outside its places");
}

#[test]
fn unsafe_code_is_in_the_platform_layer_only() {
    let belongs = |name: &str| name.starts_with("sys/");
    let words = ["unsafe ", "unsafe{", "allow(unsafe_code)", "libc::"];
    assert_none(outside(&words, belongs), "`unsafe` outside sys");
}

#[test]
fn operating_system_locks_have_one_home() {
    let found = outside(&["fs2::"], |name| name.starts_with("sys/flock"));
    assert_none(found, "fs2 outside sys/flock");
}

#[test]
fn the_front_page_has_no_logic() {
    let sources = sources();
    let front = sources.iter().find(|it| it.name == "lib.rs");
    let words = ["fn ", "impl ", "let ", "match ", "static "];
    let found = front.expect("lib.rs").code().filter(|(_, line)| {
        let code = line.trim_start();
        words.iter().any(|word| code.contains(word))
    });
    let found = found.map(|(number, line)| format!("src/lib.rs:{number}: {line}"));
    assert_none(found.collect(), "logic on the front page");
}

#[test]
fn no_file_has_a_name_that_means_nothing() {
    let vague = ["util", "utils", "common", "helpers", "types", "misc"];
    let (sources, model) = (sources(), model());
    let found = sources
        .iter()
        .chain(&model)
        .filter(|it| it.module().iter().any(|part| vague.contains(part)));
    assert_none(found.map(|it| it.name.clone()).collect(), "vague names");
}
