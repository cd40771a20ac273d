//! Documents that say what the code does.

use query::Config;

fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_code_of_a_worker_is_described() {
    let described = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let source = std::fs::read_to_string(root().join("crates/query/src/http.rs")).unwrap();
    let (_, public) = source.split_once("fn public").unwrap();
    let (public, _) = public.split_once("impl IntoResponse").unwrap();
    let mut codes: Vec<&str> = public.split("(\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    codes.extend(["not-found", api::TOO_MUCH]);
    codes.sort_unstable();
    codes.dedup();
    let mut listed: Vec<&str> =
        described.lines().filter_map(|line| line.strip_prefix("| worker | `")?.split('`').next()).collect();
    listed.sort_unstable();
    assert_eq!(listed, codes);
}

#[test]
fn the_sample_is_a_good_configuration() {
    let config = Config::load(&root().join("docs/samples/worker.toml")).unwrap();
    assert!(config.host_key.ends_with("docs/samples/keys/host.key"));
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(root().join("docs/samples/worker.toml")).unwrap();
    for (from, to) in [
        ("127.0.0.1:7081", "everywhere"),
        ("memory_mb = 1024", "memory_mb = 1"),
        ("memory_mb = 1024", "unknown = 1"),
        ("\"zurich\"", "\"Not A Region\""),
    ] {
        let path = folder.path().join("worker.toml");
        stdx::durable::write(&path, text.replace(from, to).as_bytes()).unwrap();
        assert!(Config::load(&path).is_err(), "{to}");
    }
}

#[test]
fn what_the_page_says_of_tables_is_so() {
    let page = std::fs::read_to_string(root().join("docs/formats/worker.md")).unwrap();
    for class in ["detections", "verdicts", "statistics", "content"] {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{class}` |"))).unwrap();
        let columns: Vec<&str> = row.split('`').skip(3).step_by(2).collect();
        let schema = query::Table::of(class).unwrap().file_schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, [columns, vec!["taken"]].concat(), "{class}");
    }
}
