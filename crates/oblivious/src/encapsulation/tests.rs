//! RFC 9458, appendix A, both ways as far as the random numbers in it can be given.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::{Asked, GatewayKey, Reply, ask, open, response_key};
use crate::KeyConfiguration;
use aes_gcm::aead::Aead as _;
use stdx::{Entropy, EntropyError, SystemEntropy};

const SECRET: &str = "3c168975674b2fa8e465970b79c8dcf09f1c741626480bd4c6162fc5b6a98e1a";
const CONFIGURATION: &str =
    "01002031e1f05a740102115220e9af918f738674aec95f54db6e04eb705aae8e79815500080001000100010003";
const MESSAGE: &str = "00034745540568747470730b6578616d706c652e636f6d012f";
const REQUEST: &str = "010020000100014b28f881333e7c164ffc499ad9796f877f4e1051ee6d31bad19dec96c208b4726374e4691359\
                       06992e1268c594d2a10c695d858c40a026e7965e7d86b83dd440b2c0185204b4d63525";
const EXPORTED: &str = "62d87a6ba569ee81014c2641f52bea36";
const NONCE: &str = "c789e7151fcba46158ca84b04464910d";
const RESPONSE: &str = "c789e7151fcba46158ca84b04464910d86f9013e404feea014e7be4a441f234f857fbd";

fn bytes<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

/// Gives what the example drew.
struct Given(Vec<u8>);

impl Entropy for Given {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        buffer.copy_from_slice(&self.0);
        Ok(())
    }
}

#[test]
fn the_gateway_does_what_the_example_does() {
    let key = GatewayKey::from_bytes(1, &bytes(SECRET)).unwrap();
    let configuration = KeyConfiguration::parse(&hex::decode(CONFIGURATION).unwrap()).unwrap();
    assert_eq!(*key.configuration(), configuration);
    let (message, reply) = open(&key, &hex::decode(REQUEST).unwrap()).unwrap();
    assert_eq!(hex::encode(message), MESSAGE);
    assert_eq!(*reply.secret, bytes(EXPORTED));
    let response = reply.seal(&[0x01, 0x40, 0xc8], &Given(hex::decode(NONCE).unwrap())).unwrap();
    assert_eq!(hex::encode(response), RESPONSE);
}

#[test]
fn the_example_s_answer_opens_with_its_exported_secret() {
    let encapsulated = bytes::<80>(REQUEST)[7..39].try_into().unwrap();
    let (cipher, iv) = response_key(&bytes(EXPORTED), &encapsulated, &bytes(NONCE));
    let opened = cipher.decrypt(&iv.into(), &hex::decode(RESPONSE).unwrap()[16..]).unwrap();
    assert_eq!(opened, [0x01, 0x40, 0xc8]);
}

#[test]
fn what_is_sealed_for_one_opens_for_no_other() {
    let [key, other] = [1, 2].map(|id| GatewayKey::generate(id, &SystemEntropy).unwrap());
    let question = || -> (Vec<u8>, Asked) { ask(key.configuration(), b"question", &SystemEntropy).unwrap() };
    let (request, asked) = question();
    let (opened, reply): (Vec<u8>, Reply) = open(&key, &request).unwrap();
    assert_eq!(opened, b"question");
    let response = reply.seal(b"answer", &SystemEntropy).unwrap();
    assert_eq!(asked.open(&response).unwrap(), b"answer");

    assert!(open(&other, &request).is_err());
    for at in 0..request.len() {
        let mut changed = request.clone();
        changed[at] ^= 1;
        assert!(open(&key, &changed).is_err(), "byte {at}");
        assert!(open(&key, &request[..at]).is_err(), "cut at {at}");
    }
    let (_, another) = question();
    assert!(another.open(&response).is_err(), "the answer to another question");
}
