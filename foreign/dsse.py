"""Envelopes and statements through the packages of others: securesystemslib (DSSE) and
in-toto-attestation (Statement v1)."""

import hashlib
import json

from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

import c2sp


def signer_key(text):
    """A vkey as securesystemslib has it; the keyid is its name and id."""
    key = c2sp.Key(text)
    keyid = "+".join(text.split("+")[:2])
    return SSlibKey(keyid, "ed25519", "ed25519", {"public": key.public.hex()})


class Signed:
    """A statement and who signed it, of the signers that are known."""

    def __init__(self, envelope):
        self.envelope = Envelope.from_dict(json.loads(json.dumps(envelope)))
        c2sp.require(self.envelope.payload_type == "application/vnd.in-toto+json", self.envelope.payload_type)
        self.id = hashlib.sha256(self.envelope.pae()).hexdigest()
        message = json_format.Parse(self.envelope.payload, statement_pb2.Statement())
        self.statement = Statement.copy_from_pb(message)
        self.statement.validate()
        self.type = message.predicate_type.removeprefix("https://clerestory.example/").removesuffix("/v1")
        self.subjects = {subject.name: subject.digest["sha256"] for subject in message.subject}
        # A protobuf has no integers in its predicates, so it is read once more, of the same bytes.
        self.predicate = json.loads(self.envelope.payload)["predicate"]

    def require_signed(self, keys, threshold):
        """At least so many of these keys signed."""
        self.envelope.verify([signer_key(key) for key in keys], threshold)
