//! What is served, with which headers, and what is refused.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use stdx::durable;

use crate::raw::{get, post, send};
use crate::statement::Place;
use crate::system::System;

#[test]
fn tiles_have_the_types_and_lifetimes_of_the_specification() {
    let system = System::running();
    let vendor = system.vendor.address();
    let first = system.beat(&Place::vendor());

    let checkpoint = get(vendor, "/checkpoint");
    assert_eq!((checkpoint.status, checkpoint.header("cache-control")), (200, Some("no-cache")));
    assert_eq!(checkpoint.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(checkpoint.text().starts_with("vendor.example/log\n1\n"));

    let tile = get(vendor, "/tile/0/000.p/1");
    assert_eq!((tile.status, tile.header("content-type")), (200, Some("application/octet-stream")));
    assert_eq!(tile.body, tlog::leaf_hash(&first.to_bytes()).as_bytes());
    assert!(tile.header("cache-control").unwrap().contains("immutable"));

    let bundle = get(vendor, "/tile/entries/000.p/1");
    assert_eq!((bundle.status, bundle.header("content-type")), (200, Some("application/octet-stream")));
    assert_eq!(bundle.body[2..], first.to_bytes());
    let zipped = send(
        vendor,
        b"GET /tile/entries/000.p/1 HTTP/1.1\r\nHost: t\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));

    // Who has the tile of a smaller tree asks for what was added.
    let rest = |range: &str| {
        let head = "GET /tile/0/000.p/1 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n";
        send(vendor, format!("{head}Range: bytes={range}\r\n\r\n").as_bytes())
    };
    let added = rest("16-31");
    assert_eq!((added.status, added.header("content-range")), (206, Some("bytes 16-31/32")));
    assert_eq!(added.body, tile.body[16..]);
    assert_eq!((rest("32-63").status, rest("0-1,4-5").status), (416, 416));

    for path in ["/tile/0/000", "/tile/0/000.p/255", "/tile/0/0.p/1", "/tile/9/000", "/tile/0/../entries/000.p/1"] {
        assert_eq!(get(vendor, path).status, 404, "{path}");
    }
}

#[test]
fn the_channel_is_served_and_nothing_beside_it() {
    let system = System::running();
    let vendor = system.vendor.address();
    durable::create_folder(&system.file("vendor/channel/metadata")).unwrap();
    durable::write(&system.file("vendor/channel/metadata/1.root.json"), b"{}").unwrap();
    // Several chunks, to the byte.
    let large: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    durable::write(&system.file("vendor/channel/large"), &large).unwrap();
    let found = get(vendor, "/channel/large");
    assert_eq!((found.status, found.header("content-length")), (200, Some("300000")));
    assert!(found.body == large && found.header("content-type") == Some("application/octet-stream"));
    let root = get(vendor, "/channel/metadata/1.root.json");
    assert_eq!((root.status, root.header("content-type"), &root.body[..]), (200, Some("application/json"), &b"{}"[..]));
    for path in [
        "/channel/",
        "/channel/metadata",
        "/channel/../keys/log.key",
        "/channel/%2e%2e/keys/log.key",
        "/channel/..%2fkeys%2flog.key",
        "/channel//etc/passwd",
        "/keys/log.key",
        "/",
    ] {
        assert_eq!(get(vendor, path).status, 404, "{path}");
    }
}

#[test]
fn errors_are_json_with_a_code() {
    let system = System::running();
    let vendor = system.vendor.address();
    let nothing = get(vendor, "/nothing");
    assert_eq!(nothing.header("content-type"), Some("application/json"));
    assert_eq!(nothing.error(), "404 not-found: nothing is served at `/nothing`");
    assert_eq!(get(vendor, "/v1/entries").error(), "405 method: `/v1/entries` is not served with GET");
    assert_eq!(post(vendor, "/checkpoint", b"").status, 405);
    let health = get(vendor, "/healthz").text();
    assert!(health.contains("\"role\":\"vendor\""), "{health}");

    // A body that is announced and never comes ends with the connection, not with the server.
    let mut half = TcpStream::connect(vendor).unwrap();
    half.write_all(b"POST /v1/entries HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc").unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    let _ = half.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.contains(" 400 "), "{answer}");
    assert_eq!(send(vendor, b"garbage\r\n\r\n").status, 400);
    assert_eq!(get(vendor, "/healthz").status, 200);
}
