//! python-tuf's own tests of its client, on ours: `foreign/updater_scenarios.py`.

use testkit::foreign::{python, succeed, tuf_sdist};

#[test]
fn our_client_passes_the_tests_of_python_tufs() {
    let mut scenarios = python("updater_scenarios.py");
    let said = succeed(scenarios.arg(env!("CARGO_BIN_EXE_clerestory-tuf-conformance")).arg(tuf_sdist()));
    testkit::figure("cases of python-tuf's client tests", said.lines().last().unwrap());
    assert!(said.ends_with("\n97 cases passed, 0 failed\n"), "{said}");
}
