//! The gateway's key and its configuration.

use oblivious::{GatewayKey, KeyConfiguration, KeyConfigurationError};
use stdx::SystemEntropy;

#[test]
fn a_key_s_file_gives_the_key_back_and_shows_itself_to_nobody() {
    let key = GatewayKey::generate(7, &SystemEntropy).unwrap();
    let text = key.to_secret_text();
    let read: GatewayKey = text.parse().unwrap();
    assert_eq!(read.configuration(), key.configuration());
    assert_eq!(*read.to_secret_text(), *text);
    let secret = text.split_whitespace().last().unwrap();
    assert!(!format!("{key:?}").contains(secret));
    let third = text.replace(" 7 ", " 300 ");
    for bad in ["", "clerestory-gateway-key 1 7", &text[..text.len() - 9], third.as_str()] {
        assert!(bad.parse::<GatewayKey>().is_err());
    }
}

#[test]
fn a_configuration_is_read_as_it_is_written_and_lies_are_refused() {
    let key = GatewayKey::generate(1, &SystemEntropy).unwrap();
    let bytes = key.configuration().to_bytes();
    assert_eq!(bytes.len(), 41);
    assert_eq!(KeyConfiguration::parse(&bytes).as_ref(), Ok(key.configuration()));
    assert_eq!(key.configuration().to_string().parse::<KeyConfiguration>().as_ref(), Ok(key.configuration()));
    for cut in 0..bytes.len() {
        assert!(KeyConfiguration::parse(&bytes[..cut]).is_err());
    }
    let with = |at: usize, byte: u8| {
        let mut changed = bytes.clone();
        changed[at] = byte;
        KeyConfiguration::parse(&changed)
    };
    assert_eq!(with(2, 0x10), Err(KeyConfigurationError::Algorithms), "P-256");
    assert_eq!(with(40, 3), Err(KeyConfigurationError::Algorithms), "ChaCha20-Poly1305 alone");
    assert!(with(36, 8).is_err(), "the list is shorter than it says");
}
