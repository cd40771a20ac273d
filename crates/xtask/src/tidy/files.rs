//! Every file, whatever it holds.

use super::{Problem, Tree};

/// Sources and data are fetched by digest, never committed.
const BYTES_MAX: u64 = 1024 * 1024;

/// Addresses of package registries, in two halves so that this file passes: they come from the machine's
/// own settings (cargo, apt, pip), so that a mirror works.
const REGISTRIES: [&str; 9] = [
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("registry.npm", "js.org"),
    concat!("npm", "js.com"),
    concat!("deb.debian", ".org"),
    concat!("snapshot.debian", ".org"),
    concat!("security.debian", ".org"),
    concat!("ftp.debian", ".org"),
];

/// Folders of the machines this was written on.
const PLACES: [&str; 4] =
    [concat!("/work", "/main"), concat!("/work", "/shared"), concat!("/tmp/", "plan"), concat!("/tmp/", "target-")];

pub(crate) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in &tree.files {
        let size = tree.path(file).symlink_metadata().map_or(0, |found| found.len());
        if size > BYTES_MAX {
            let what = format!("{size} bytes, more than {BYTES_MAX}");
            problems.push(Problem::in_file(file, what, "name it by digest and fetch it"));
            continue;
        }
        // cargo writes the registry's address there.
        if !file.ends_with("Cargo.lock") {
            problems.extend(check_words(tree, file));
        }
    }
    problems
}

fn check_words(tree: &Tree, file: &std::path::Path) -> Vec<Problem> {
    // A checkout in `/` or `/src` is no word to look for.
    let checkout = (tree.root.components().count() > 2).then(|| tree.root.display().to_string().to_lowercase());
    let places = PLACES.into_iter().chain(checkout.as_deref());
    let words = REGISTRIES.into_iter().map(|word| (word, "leave the address to the machine's own settings"));
    let words: Vec<_> =
        words.chain(places.map(|word| (word, "no path of one machine belongs in the repository"))).collect();
    let mut problems = Vec::new();
    for (index, line) in tree.text(file).to_lowercase().lines().enumerate() {
        for (word, hint) in &words {
            if line.contains(word) {
                problems.push(Problem::at_line(file, index, format!("`{word}`"), hint));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MAX, PLACES, REGISTRIES, check};
    use crate::tidy::sample::{lines, sample};

    #[test]
    fn every_word_is_found_in_any_case() {
        for word in REGISTRIES.into_iter().chain(PLACES) {
            let text = format!("first\nx {} y\n", word.to_uppercase());
            let sample = sample(&[("a/b.txt", &text)]);
            assert!(lines(&check(&sample.tree)).contains(&format!("a/b.txt:2: `{word}`")), "{word}");
        }
    }

    #[test]
    fn cargos_lock_file_may_name_its_registry() {
        assert!(check(&sample(&[("Cargo.lock", REGISTRIES[0])]).tree).is_empty());
    }

    #[test]
    fn the_checkouts_own_path_is_refused() {
        let mut sample = sample(&[("a.txt", "")]);
        let root = sample.tree.root.display().to_string();
        std::io::Write::write_all(&mut std::fs::File::create(sample.tree.root.join("a.txt")).unwrap(), root.as_bytes())
            .unwrap();
        assert_eq!(lines(&check(&sample.tree)), [format!("a.txt:1: `{}`", root.to_lowercase())]);
        sample.tree.files.clear();
        assert!(check(&sample.tree).is_empty());
    }

    #[test]
    fn large_files_are_refused() {
        let sample = sample(&[("a.bin", "")]);
        let file = std::fs::OpenOptions::new().write(true).open(sample.tree.root.join("a.bin")).unwrap();
        file.set_len(BYTES_MAX).unwrap();
        assert!(check(&sample.tree).is_empty());
        file.set_len(BYTES_MAX + 1).unwrap();
        assert_eq!(lines(&check(&sample.tree)), ["a.bin: 1048577 bytes, more than 1048576"]);
    }
}
