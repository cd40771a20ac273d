//! What a configuration may hold.

use super::*;

#[test]
fn a_listener_is_an_address_or_standard_input() {
    assert_eq!("stdin".parse(), Ok(Listen::Stdin));
    assert_eq!("127.0.0.1:80".parse(), Ok(Listen::Address(([127, 0, 0, 1], 80).into())));
    assert!("localhost:80".parse::<Listen>().is_err());
}

#[test]
fn errors_name_the_line() {
    let text = "role = \"witness\"\nlisten = \"127.0.0.1:1\"\ndata = \".\"\nkey = \"k\"\nlogs = []\nlogz = 1\n";
    let Err(ParseError::Syntax(error)) = Config::parse(text, Path::new("/")) else { panic!("accepted") };
    insta::assert_snapshot!(error, @r"
    TOML parse error at line 6, column 1
      |
    6 | logz = 1
      | ^^^^
    unknown field `logz`, expected one of `role`, `listen`, `metrics`, `data`, `key`, `logs`, `http`
    ");
}
