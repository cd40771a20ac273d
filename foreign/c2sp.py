"""Transparency logs as C2SP's pages describe them, and nothing more: signed-note, tlog-checkpoint,
tlog-cosignature, tlog-tiles, tlog-proof, tlog-policy, and the trees of RFC 6962.

Written from the specifications, to be a second opinion about ours.
"""

import base64
import hashlib
import struct
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519, COSIGNATURE = 0x01, 0x04


class Wrong(Exception):
    """What was read is not what the specification says."""


def require(condition, complaint):
    if not condition:
        raise Wrong(complaint)


def unbase64(text):
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Wrong(f"`{text}` is no base64: {error}") from error
    require(base64.b64encode(data).decode() == text, f"`{text}` is base64 written otherwise")
    return data


def decimal(text):
    require(text.isascii() and text.isdigit() and (text == "0" or text[0] != "0"), f"`{text}` is no decimal")
    return int(text)


# signed-note


class Key:
    """A verifier key: `name+id+base64(type || public key)`."""

    def __init__(self, text):
        self.name, key_id, material = text.strip().split("+", 2)
        material = unbase64(material)
        self.kind, self.public = material[0], material[1:]
        require(self.kind in (ED25519, COSIGNATURE) and len(self.public) == 32, f"{text}: another kind of key")
        self.id = key_id_of(self.name, material)
        require(self.id.hex() == key_id, f"{text}: the id should be {self.id.hex()}")

    def verify(self, message, signature):
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature as error:
            raise Wrong(f"a signature of {self.name} is wrong") from error


class Signer:
    """A signer key: `PRIVATE+KEY+name+id+base64(type || seed)`."""

    def __init__(self, text):
        private, key, self.name, _, material = text.strip().split("+", 4)
        require((private, key) == ("PRIVATE", "KEY"), "no signer key")
        material = unbase64(material)
        self.kind = material[0]
        self.private = Ed25519PrivateKey.from_private_bytes(material[1:])
        self.id = key_id_of(self.name, bytes([self.kind]) + self.private.public_key().public_bytes_raw())

    def line(self, signature):
        return f"\u2014 {self.name} {base64.b64encode(self.id + signature).decode()}\n"

    def sign(self, text):
        """The signature line of a note with this text."""
        return self.line(self.private.sign(text.encode()))

    def cosign(self, text, when=None):
        """The cosignature line of a checkpoint with this text."""
        when = int(time.time()) if when is None else when
        return self.line(struct.pack(">Q", when) + self.private.sign(cosigned_message(text, when)))


def key_id_of(name, material):
    return hashlib.sha256(name.encode() + b"\n" + material).digest()[:4]


class Note:
    """Text and signature lines. The text ends at the last empty line."""

    def __init__(self, note):
        self.text, empty_line, lines = note.rpartition("\n\n")
        require(empty_line, "a note without an empty line")
        self.text += "\n"
        self.signatures = signature_lines(lines)
        require(self.signatures, "a note without signatures")

    def by(self, key):
        """The signatures of this key, none of them verified."""
        return [signature for name, key_id, signature in self.signatures if (name, key_id) == (key.name, key.id)]


def signature_lines(lines):
    """`(name, key id, signature)` of each line."""
    require(lines.endswith("\n"), "the last line does not end")
    found = []
    for line in lines[:-1].split("\n"):
        parts = line.split(" ")
        require(len(parts) == 3 and parts[0] == "\u2014" and parts[1], f"`{line}` is no signature line")
        signature = unbase64(parts[2])
        require(len(signature) > 4, f"`{line}` has no signature")
        found.append((parts[1], signature[:4], signature[4:]))
    return found


# tlog-checkpoint, tlog-cosignature


class Checkpoint:
    """Origin, size and root of a note's text."""

    def __init__(self, note):
        self.note = Note(note)
        lines = self.note.text[:-1].split("\n")
        require(len(lines) == 3, "a checkpoint has three lines, and ours no more")
        self.origin, self.size, self.root = lines[0], decimal(lines[1]), unbase64(lines[2])
        require(self.origin and len(self.root) == 32, "no origin, or no SHA-256")
        require(self.size > 0 or self.root == hashlib.sha256(b"").digest(), "size 0 with another root than the empty")

    def verify_log(self, key):
        require(key.kind == ED25519 and key.name == self.origin, f"{key.name} is no key of {self.origin}")
        signatures = self.note.by(key)
        require(signatures, f"{key.name} did not sign")
        for signature in signatures:
            key.verify(self.note.text.encode(), signature)

    def cosigned(self, key):
        """When the witness cosigned last; None if it did not."""
        require(key.kind == COSIGNATURE, f"{key.name} is no witness's key")
        times = []
        for signature in self.note.by(key):
            require(len(signature) == 72, f"a cosignature of {key.name} has {len(signature)} bytes")
            when = struct.unpack(">Q", signature[:8])[0]
            key.verify(cosigned_message(self.note.text, when), signature[8:])
            times.append(when)
        return max(times, default=None)


def cosigned_message(text, when):
    return f"cosignature/v1\ntime {when}\n{text}".encode()


# tlog-policy


class Policy:
    """Which logs are known, and which witnesses are enough."""

    def __init__(self, text):
        self.logs, self.witnesses, self.groups, self.quorum = {}, {}, {}, None
        for line in text.split("\n"):
            words = line.replace("\t", " ").split()
            if not words or words[0].startswith("#"):
                continue
            if words[0] == "log":
                key = Key(words[1])
                self.logs[key.name] = key
            elif words[0] == "witness":
                self.witnesses[words[1]] = Key(words[2])
            elif words[0] == "group":
                members = words[3:]
                require(all(name in self.witnesses or name in self.groups for name in members), line)
                least = {"all": len(members), "any": 1}.get(words[2]) or decimal(words[2])
                require(1 <= least <= len(members), line)
                self.groups[words[1]] = (least, members)
            else:
                require(words[0] == "quorum" and self.quorum is None, line)
                self.quorum = words[1]
        require(self.quorum is not None, "a policy without a quorum")

    def verify(self, checkpoint):
        """The names of the witnesses that cosigned, if they are enough."""
        require(checkpoint.origin in self.logs, f"{checkpoint.origin} is no log of the policy")
        checkpoint.verify_log(self.logs[checkpoint.origin])
        cosigned = {name for name, key in self.witnesses.items() if checkpoint.cosigned(key) is not None}
        require(self.is_met(self.quorum, cosigned), f"{sorted(cosigned)} are no quorum")
        return cosigned

    def is_met(self, name, cosigned):
        if name in self.groups:
            least, members = self.groups[name]
            return sum(self.is_met(member, cosigned) for member in members) >= least
        return name in cosigned


# RFC 6962, section 2.1; the verifications are those of RFC 9162, 2.1.3.2 and 2.1.4.2


def leaf_hash(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def root_of(leaves):
    """MTH of leaf hashes."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(root_of(leaves[:split]), root_of(leaves[split:]))


def inclusion_path(index, leaves):
    """PATH(index, leaves)."""
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return inclusion_path(index, leaves[:split]) + [root_of(leaves[split:])]
    return inclusion_path(index - split, leaves[split:]) + [root_of(leaves[:split])]


def consistency_proof(old, leaves, complete=True):
    """SUBPROOF(old, leaves, complete)."""
    if old == len(leaves):
        return [] if complete else [root_of(leaves)]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if old <= split:
        return consistency_proof(old, leaves[:split], complete) + [root_of(leaves[split:])]
    return consistency_proof(old - split, leaves[split:], False) + [root_of(leaves[:split])]


def verify_inclusion(index, size, leaf, path, root):
    require(index < size, f"entry {index} of {size}")
    node, last, computed = index, size - 1, leaf
    for sibling in path:
        require(last != 0, "the path is too long")
        if node & 1 or node == last:
            computed = node_hash(sibling, computed)
            while node & 1 == 0 and node != 0:
                node, last = node >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        node, last = node >> 1, last >> 1
    require(last == 0 and computed == root, f"entry {index} is not under the root")


def verify_consistency(old, old_root, size, root, proof):
    require(0 < old <= size, f"from {old} to {size}")
    if old == size:
        require(not proof and old_root == root, "equal sizes have equal roots and an empty proof")
        return
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    require(path, "the proof is too short")
    node, last = old - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        require(last != 0, "the proof is too long")
        if node & 1 or node == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while node & 1 == 0 and node != 0:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        node, last = node >> 1, last >> 1
    require(last == 0 and first == old_root and second == root, f"size {old} does not lead to {size}")


# tlog-tiles


def tile_index(number):
    parts = [f"{number % 1000:03}"]
    while number >= 1000:
        number //= 1000
        parts.insert(0, f"x{number % 1000:03}")
    return "/".join(parts)


def tile_path(level, number, width):
    return f"tile/{level}/{tile_index(number)}" + ("" if width == 256 else f".p/{width}")


def entries_in(bundle, width):
    """The entries of an entry bundle, which must be as many as its path says."""
    entries = []
    while bundle:
        require(len(bundle) >= 2, "half a length")
        length = struct.unpack(">H", bundle[:2])[0]
        require(len(bundle) >= 2 + length, "an entry is cut off")
        entries.append(bundle[2 : 2 + length])
        bundle = bundle[2 + length :]
    require(len(entries) == width, f"{len(entries)} entries instead of {width}")
    return entries


# tlog-proof


class Proof:
    """`c2sp.org/tlog-proof@v1`: an entry's index, its path and a checkpoint."""

    def __init__(self, text):
        head, empty_line, checkpoint = text.partition("\n\n")
        lines = head.split("\n")
        require(empty_line and lines.pop(0) == "c2sp.org/tlog-proof@v1", "no tlog-proof")
        self.extra = unbase64(lines.pop(0)[len("extra ") :]) if lines[0].startswith("extra ") else None
        index = lines.pop(0)
        require(index.startswith("index "), "no index")
        self.index = decimal(index[len("index ") :])
        self.path = [unbase64(line) for line in lines]
        require(all(len(node) == 32 for node in self.path), "a hash that is no SHA-256")
        self.checkpoint = Checkpoint(checkpoint)

    def verify(self, entry, policy):
        """The witnesses of the checkpoint that the entry is under."""
        cosigned = policy.verify(self.checkpoint)
        leaf, checkpoint = leaf_hash(entry), self.checkpoint
        verify_inclusion(self.index, checkpoint.size, leaf, self.path, checkpoint.root)
        return cosigned
