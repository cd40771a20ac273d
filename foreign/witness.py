"""A witness (C2SP tlog-witness), which can also misbehave in every way that a log must survive.

    witness.py SIGNER-KEY-FILE LOG-VKEY…      serves the listening socket on standard input

Beside the protocol, for tests:
    POST /behave/NAME   from now on `add-checkpoint` is answered as NAME says: `honest` or one of ODD
    GET  /seen/NAME     whether it was answered so (200 or 404), and the statuses of all honest answers
"""

import hashlib
import http.server
import socket
import struct
import sys
import threading
import time

import c2sp

DAY = 24 * 3600


class Refused(Exception):
    """An answer that is not 200."""

    def __init__(self, status, body="no\n", content_type="text/plain; charset=utf-8"):
        super().__init__(status)
        self.answer = (status, content_type, body)


class Witness:
    """The protocol's steps, in the order of its page."""

    def __init__(self, signer, logs):
        self.signer, self.logs = signer, logs
        self.latest = {}
        self.lock = threading.Lock()

    def add_checkpoint(self, body):
        old, proof, checkpoint = parse_request(body)
        key = self.logs.get(checkpoint.origin)
        if key is None:
            raise Refused(404)
        try:
            checkpoint.verify_log(key)
        except c2sp.Wrong as error:
            raise Refused(403, f"{error}\n") from error
        if old > checkpoint.size:
            raise Refused(400)
        with self.lock:
            size, root, _ = self.latest.get(checkpoint.origin, (0, hashlib.sha256(b"").digest(), None))
            if old != size:
                raise Refused(409, f"{size}\n", "text/x.tlog.size")
            try:
                if old == 0:
                    c2sp.require(not proof, "from size 0 the proof is empty")
                else:
                    c2sp.verify_consistency(old, root, checkpoint.size, checkpoint.root, proof)
            except c2sp.Wrong as error:
                raise Refused(422, f"{error}\n") from error
            line = self.signer.cosign(checkpoint.note.text)
            by_log = "".join(reline(key, signature) for signature in checkpoint.note.by(key))
            note = checkpoint.note.text + "\n" + by_log + line
            self.latest[checkpoint.origin] = (checkpoint.size, checkpoint.root, note)
        return line, checkpoint

    def checkpoint(self, origin_hash):
        for origin, (_, _, note) in self.latest.items():
            if hashlib.sha256(origin.encode()).hexdigest() == origin_hash:
                return note
        raise Refused(404)


def parse_request(body):
    try:
        head, empty_line, checkpoint = body.decode().partition("\n\n")
        lines = head.split("\n")
        c2sp.require(empty_line and lines[0].startswith("old "), "no `old` line, or no empty line")
        old, proof = c2sp.decimal(lines[0][len("old ") :]), [c2sp.unbase64(line) for line in lines[1:]]
        c2sp.require(len(proof) <= 63 and all(len(node) == 32 for node in proof), "no proof")
        return old, proof, c2sp.Checkpoint(checkpoint)
    except (c2sp.Wrong, UnicodeDecodeError) as error:
        raise Refused(400, f"{error}\n") from error


def reline(key, signature):
    signer = object.__new__(c2sp.Signer)
    signer.name, signer.id = key.name, key.id
    return signer.line(signature)


def strangers(signer):
    """Lines that a log must ignore: another name, our name with another id, a kind of tomorrow."""
    material = [b"\4" + bytes([n] * 32) for n in (1, 2)] + [b"\6" + bytes(1312)]
    names = ["stranger.example/witness", signer.name, signer.name]
    lengths = [72, 72, 8 + 2420]
    for name, one, length in zip(names, material, lengths):
        line = object.__new__(c2sp.Signer)
        line.name, line.id = name, c2sp.key_id_of(name, one)
        yield line.line(bytes(length))


def odd_line(signer, text, when=None, flip=0):
    when = int(time.time()) if when is None else when
    signature = bytearray(signer.private.sign(c2sp.cosigned_message(text, when)))
    signature[0] ^= flip
    return signer.line(struct.pack(">Q", when) + bytes(signature))


TEXT = "text/plain; charset=utf-8"
# What each odd witness says, given the honest line, the checkpoint and the key.
ODD = {
    # Lines of others are ignored, and ours counts.
    "extra": lambda line, seen, key: (200, TEXT, line.join(list(strangers(key))[:2]) + list(strangers(key))[2]),
    "foreign": lambda line, seen, key: (200, TEXT, "".join(strangers(key))),
    "empty": lambda line, seen, key: (200, TEXT, ""),
    "html": lambda line, seen, key: (200, "text/html", "<html>hello</html>"),
    "wrong": lambda line, seen, key: (200, TEXT, odd_line(key, seen.note.text, flip=1)),
    "yesterday": lambda line, seen, key: (200, TEXT, odd_line(key, seen.note.text, when=int(time.time()) - DAY)),
    "timeless": lambda line, seen, key: (200, TEXT, odd_line(key, seen.note.text, when=0)),
    "other": lambda line, seen, key: (200, TEXT, odd_line(key, seen.note.text.replace("\n", "x\n", 1))),
    "larger": lambda line, seen, key: (409, "text/x.tlog.size", f"{seen.size + 1000}\n"),
    "untyped": lambda line, seen, key: (409, TEXT, "0\n"),
    "unsized": lambda line, seen, key: (409, "text/x.tlog.size", "many\n"),
    "unprocessable": lambda line, seen, key: (422, TEXT, "no\n"),
    "malformed": lambda line, seen, key: (400, TEXT, "no\n"),
    "forbidden": lambda line, seen, key: (403, TEXT, "no\n"),
    "unknown": lambda line, seen, key: (404, TEXT, "no\n"),
    "broken": lambda line, seen, key: (500, TEXT, "no\n"),
    "busy": lambda line, seen, key: (503, TEXT, "no\n"),
    "moved": lambda line, seen, key: (302, TEXT, "no\n"),
    "nocontent": lambda line, seen, key: (204, None, ""),
    "truncated": lambda line, seen, key: (200, TEXT, line),
    "slow": lambda line, seen, key: (200, TEXT, line),
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    witness = None
    behaviour = "honest"
    seen = set()
    honest = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/behave/"):
            Handler.behaviour = self.path.removeprefix("/behave/")
            assert Handler.behaviour == "honest" or Handler.behaviour in ODD, self.path
            return self.answer(200, TEXT, "")
        if self.path != "/add-checkpoint":
            return self.answer(404, TEXT, "no\n")
        behaviour = Handler.behaviour
        try:
            line, checkpoint = self.witness.add_checkpoint(body)
            answer = (200, TEXT, line)
        except Refused as refused:
            answer, checkpoint = refused.answer, None
        if behaviour == "honest" or checkpoint is None:
            self.honest.append(answer[0])
            behaviour = "honest"
        else:
            answer = ODD[behaviour](line, checkpoint, self.witness.signer)
        if behaviour == "slow":
            # Until the log hangs up.
            self.seen.add(behaviour)
            self.connection.recv(1)
            self.close_connection = True
            return None
        self.answer(*answer, more=100 if behaviour == "truncated" else 0)
        self.close_connection = self.close_connection or behaviour == "truncated"
        self.seen.add(behaviour)

    def do_GET(self):
        if self.path.startswith("/seen/"):
            found = self.path.removeprefix("/seen/") in self.seen
            return self.answer(200 if found else 404, TEXT, " ".join(map(str, self.honest)) + "\n")
        parts = self.path.split("/")
        try:
            if len(parts) != 3 or parts[2] != "checkpoint":
                raise Refused(404)
            self.answer(200, TEXT, self.witness.checkpoint(parts[1]))
        except Refused as refused:
            self.answer(*refused.answer)

    def answer(self, status, content_type, body, more=0):
        body = body.encode()
        self.send_response(status)
        if content_type is not None:
            self.send_header("Content-Type", content_type)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        if status != 204:
            self.send_header("Content-Length", str(len(body) + more))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        pass


def main():
    signer = c2sp.Signer(open(sys.argv[1], encoding="ascii").read())
    logs = [c2sp.Key(text) for text in sys.argv[2:]]
    Handler.witness = Witness(signer, {key.name: key for key in logs})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.daemon_threads = True
    server.socket = socket.socket(fileno=0)
    server.serve_forever()


if __name__ == "__main__":
    main()
