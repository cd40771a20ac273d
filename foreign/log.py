"""A log that drives a witness over HTTP and expects of each answer what C2SP tlog-witness says.

    log.py WITNESS-URL WITNESS-VKEY LOG-SIGNER-KEY-FILE

Prints how many answers it checked.
"""

import hashlib
import http.client
import sys
import threading
import time
import urllib.parse

import c2sp

EMPTY_ROOT = hashlib.sha256(b"").digest()


class Driver:
    """A log of numbered entries, and the witness that it asks."""

    def __init__(self, url, witness, signer):
        self.url, self.witness, self.signer = urllib.parse.urlparse(url), witness, signer
        self.leaves = [c2sp.leaf_hash(str(number).encode()) for number in range(300)]
        self.checked = 0
        self.connection = http.client.HTTPConnection(self.url.netloc, timeout=60)

    def request(self, method, path, body=None):
        # One connection for all, kept alive as the page asks for.
        self.connection.request(method, path, body)
        response = self.connection.getresponse()
        return response.status, response.headers.get("Content-Type"), response.read().decode()

    def text(self, size, root=None, origin=None):
        root = c2sp.root_of(self.leaves[:size]) if root is None else root
        return f"{origin or self.signer.name}\n{size}\n{c2sp.base64.b64encode(root).decode()}\n"

    def note(self, size, root=None):
        text = self.text(size, root)
        return text + "\n" + self.signer.sign(text)

    def proof(self, old, size):
        return c2sp.consistency_proof(old, self.leaves[:size]) if 0 < old < size else []

    def body(self, old, size, proof=None, note=None):
        proof = self.proof(old, size) if proof is None else proof
        lines = "".join(c2sp.base64.b64encode(node).decode() + "\n" for node in proof)
        return f"old {old}\n{lines}\n{self.note(size) if note is None else note}"

    def add(self, body):
        return self.request("POST", "/add-checkpoint", body.encode())

    def expect(self, what, answer, status, content_type=None, body=None):
        self.checked += 1
        c2sp.require(answer[0] == status, f"{what}: {answer} instead of {status}")
        c2sp.require(content_type is None or answer[1] == content_type, f"{what}: {answer}")
        c2sp.require(body is None or answer[2] == body, f"{what}: {answer}")

    def expect_cosigned(self, what, size, answer):
        """200, and at least one line, all of them the witness's, with the time of now."""
        self.expect(what, answer, 200)
        lines = c2sp.signature_lines(answer[2])
        c2sp.require({line[:2] for line in lines} == {(self.witness.name, self.witness.id)}, what)
        when = c2sp.Checkpoint(self.note(size) + answer[2]).cosigned(self.witness)
        c2sp.require(abs(when - time.time()) < 60, f"{what}: cosigned at {when}")

    def expect_size(self, what, size, answer):
        self.expect(what, answer, 409, "text/x.tlog.size", f"{size}\n")


def grow(driver):
    """What an honest log does."""
    driver.expect_size("learning the size with a wrong guess", 0, driver.add(driver.body(3, 5)))
    driver.expect_cosigned("size 0, of the empty tree", 0, driver.add(driver.body(0, 0)))
    driver.expect_cosigned("the first growth", 1, driver.add(driver.body(0, 1)))
    driver.expect_size("learning the size from 0", 1, driver.add(driver.body(0, 2)))
    size = 1
    for larger in (2, 3, 4, 7, 8, 64, 65, 255, 256, 257):
        driver.expect_cosigned(f"{size} to {larger}", larger, driver.add(driver.body(size, larger)))
        size = larger
    driver.expect_cosigned("the same again", size, driver.add(driver.body(size, size)))
    driver.expect_size("an older one", size, driver.add(driver.body(8, 64)))
    stranger = "\u2014 stranger.example/log " + c2sp.base64.b64encode(bytes(68)).decode() + "\n"
    text = driver.text(258)
    strange = text + "\n" + stranger + driver.signer.sign(text) + driver.signer.line(bytes(64)).replace(
        driver.signer.name, "other.example/log"
    )
    driver.expect_cosigned("signatures of strangers", 258, driver.add(driver.body(257, 258, note=strange)))
    return 258


def lie(driver, size):
    """What is refused, and leaves nothing behind."""
    wrong = bytes(32)
    good = driver.body(size, size + 1)
    text, note = driver.text(size + 1), driver.note(size + 1)
    driver.expect("no proof", driver.add(driver.body(size, size + 1, proof=[])), 422)
    driver.expect("a wrong proof", driver.add(driver.body(size, size + 1, proof=[wrong])), 422)
    driver.expect("a proof too long", driver.add(driver.body(size, size + 1, driver.proof(size, size + 1) + [wrong])), 422)
    driver.expect("a proof to the same size", driver.add(driver.body(size, size, proof=[wrong])), 422)
    driver.expect("size 0 with a root", driver.add(driver.body(0, 0, note=driver.note(0, wrong))), 422)
    driver.expect("old above size", driver.add(driver.body(size + 2, size + 1, proof=[])), 400)
    fork = driver.add(driver.body(size, size, note=driver.note(size, wrong)))
    # 409 in v1.0.0 and 422 later; never one that reads like a size.
    c2sp.require(fork[0] in (409, 422) and fork[1] != "text/x.tlog.size", f"a fork: {fork}")
    driver.checked += 1

    other = text.replace(driver.signer.name, "unknown.example/log")
    driver.expect("an unknown log", driver.add(driver.body(size, size + 1, note=other + "\n" + driver.signer.sign(other))), 404)
    stranger = "\u2014 stranger.example/log " + c2sp.base64.b64encode(bytes(68)).decode() + "\n"
    driver.expect("no known signature", driver.add(driver.body(size, size + 1, note=text + "\n" + stranger)), 403)
    forged = text + "\n" + driver.signer.sign(driver.text(size))
    driver.expect("another note's signature", driver.add(driver.body(size, size + 1, note=forged)), 403)
    both = note + driver.signer.line(bytes(64))
    driver.expect("a good and a wrong one", driver.add(driver.body(size, size + 1, note=both)), 403)

    malformed = {
        "nothing": "",
        "no `old` line": good.split("\n", 1)[1],
        "an `old` line with a plus": good.replace("old ", "old +", 1),
        "a leading zero": good.replace("old ", "old 0", 1),
        "two spaces": good.replace("old ", "old  ", 1),
        "a number above 64 bits": good.replace(f"old {size}", f"old {1 << 64}", 1),
        "CRLF": good.replace("\n", "\r\n"),
        "no empty line": good.replace("\n\n", "\n", 1),
        "a short hash": good.replace("\n", "\nAAAA\n", 1),
        "no base64": good.replace("\n", "\n!\n", 1),
        "base64 without padding": good.replace("=\n", "\n", 1),
        "64 hashes": driver.body(size, size + 1, proof=[wrong] * 64),
        "no newline at the end": good[:-1],
        "no signature": good.rsplit("\u2014", 1)[0],
        "a size with a leading zero": good.replace(f"\n{size + 1}\n", f"\n0{size + 1}\n", 1),
        "a root of 31 bytes": driver.body(size, size + 1, note=driver.note(size + 1, bytes(31))),
        "no UTF-8": None,
    }
    for what, body in malformed.items():
        body = b"old 0\n\xff\n" if body is None else body.encode()
        driver.expect(what, driver.request("POST", "/add-checkpoint", body), 400)
    driver.expect("GET", driver.request("GET", "/add-checkpoint"), 405)
    driver.expect_size("nothing of it was kept", size, driver.add(driver.body(0, size + 1)))
    driver.expect_cosigned("the log goes on", size + 1, driver.add(good))
    return size + 1


def monitor(driver, size):
    """The monitor retrieval mechanism."""
    origin_hash = hashlib.sha256(driver.signer.name.encode()).hexdigest()
    answer = driver.request("GET", f"/{origin_hash}/checkpoint")
    driver.expect("the latest checkpoint", answer, 200)
    checkpoint = c2sp.Checkpoint(answer[2])
    c2sp.require((checkpoint.origin, checkpoint.size) == (driver.signer.name, size), answer[2])
    c2sp.require(checkpoint.cosigned(driver.witness) is not None, answer[2])
    signed = [key_id for name, key_id, _ in checkpoint.note.signatures if name == driver.signer.name]
    c2sp.require(signed == [driver.signer.id], "the log's own signature is there, and no other of its name")
    driver.expect("another log", driver.request("GET", "/" + "0" * 64 + "/checkpoint"), 404)
    driver.expect("no hash", driver.request("GET", "/0/checkpoint"), 404)


def race(driver, size):
    """Of many different growths from one size at once, one is cosigned, and the others learn of it."""
    answers = []

    def run(larger):
        own = Driver(driver.url.geturl(), driver.witness, driver.signer)
        answers.append((larger, own.add(own.body(size, larger))))

    threads = [threading.Thread(target=run, args=(size + 1 + n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [larger for larger, answer in answers if answer[0] == 200]
    c2sp.require(len(won) == 1 and len(answers) == 8, f"{answers}")
    for _, answer in answers:
        if answer[0] != 200:
            driver.expect_size("a lost race", won[0], answer)


def main():
    witness = c2sp.Key(sys.argv[2])
    driver = Driver(sys.argv[1], witness, c2sp.Signer(open(sys.argv[3], encoding="ascii").read()))
    driver.expect("nothing cosigned yet", driver.request("GET", f"/{hashlib.sha256(driver.signer.name.encode()).hexdigest()}/checkpoint"), 404)
    size = lie(driver, grow(driver))
    monitor(driver, size)
    race(driver, size)
    print(f"{driver.checked} answers as the specification says")


if __name__ == "__main__":
    main()
