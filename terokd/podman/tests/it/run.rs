//! Runs the tests of `real` where there is a Podman: in a private one that `tests/env/podman-test-env` sets up.

use terok_tests::private::in_private;

#[test]
fn real_podman() {
    let itself = [("it", std::env::current_exe().unwrap())];
    in_private(
        &itself,
        &["--base-image"],
        &["--ignored", "--test-threads", "2"],
    );
}
