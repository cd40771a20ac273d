"""Tells from a log alone who read what, and what does not agree.

    read_accesses.py URL POLICY-ENVELOPE POLICY-ID [EARLIER-CHECKPOINT…]

Checks the log as read_log.py does, that each earlier checkpoint is of the same tree, and of each entry that it
is one canonical statement, next in its stream, signed by a key of the stream's organisation, and if it is about
access to data by one of the role that may say so. Then: every intent has its request and approvals before it,
every outcome one intent, no custodian has opened more than the log says. Prints JSON; ends with 1 if anything
is wrong.
"""

import json
import sys
from datetime import datetime, timezone

import c2sp
from dsse import Signed
from read_log import Log, has_grown, read
from verify_bundle import canonical, keys_of, read_policy, signed_by

ROLES = {
    "access-request": ("data", "reader"),
    "access-approval": ("data", "approver"),
    "access-review": ("data", "approver"),
    "access-redaction": ("data", "approver"),
    "access-intent": ("access", "gateway"),
    "access-outcome": ("access", "gateway"),
    "custody-report": ("custody", "custodian"),
}

# Minutes after its lease within which an access has an outcome.
GRACE_S = 600


class Ledger:
    """What the entries say, one after the other."""

    def __init__(self, policy):
        self.policy, self.residency = policy, policy["residency"]
        self.streams = {it["stream"]: it for it in policy["streams"] if it["log"] == self.residency["log"]}
        self.ends, self.findings = {}, []
        self.requests, self.approvers, self.intents, self.outcomes = {}, {}, {}, {}
        self.reviews, self.reports = 0, {}

    def entry(self, index, data):
        try:
            self.take(index, data)
        except Exception as error:
            self.findings.append({"entry": index, "detail": str(error)})

    def take(self, index, data):
        envelope = json.loads(data)
        c2sp.require(canonical(envelope) == data, "not in canonical form")
        signed = Signed(envelope)
        position = signed.predicate.get("position") or signed.predicate["https://clerestory.example/position"]
        stream = self.streams[position["stream"]]
        c2sp.require(position["log"] == self.residency["log"], "made for another log")
        (owner,) = [it for it in self.policy["organisations"] if it["id"] == stream["organisation"]]
        writes = any(signed_by(signed, key["key"]) for key in owner["keys"])
        c2sp.require(writes, "signed by nobody who writes this stream")
        self.follow(position, signed.id)
        if signed.type in ROLES:
            prefix, role = ROLES[signed.type]
            owner = position["stream"].removeprefix(prefix + "/")
            keys = [key for key in keys_of(self.policy, owner, role) if signed_by(signed, key)]
            c2sp.require(keys, f"a {signed.type} that no {role} of {owner} has signed")
            getattr(self, signed.type.replace("-", "_"))(signed, owner, keys)

    def follow(self, position, identity):
        """The next number of its epoch, or the first of the next one; it names the one before it."""
        epoch, sequence, previous = self.ends.get(position["stream"], (0, -1, None))
        new = position["epoch"] == epoch + 1 and position["sequence"] == 0
        following = position["epoch"] == epoch and position["sequence"] == sequence + 1
        c2sp.require(new or following, f"{position['stream']}: not the next number")
        c2sp.require(position.get("previous") == previous, f"{position['stream']}: names another one before it")
        self.ends[position["stream"]] = (position["epoch"], position["sequence"], identity)

    def access_request(self, signed, _owner, _keys):
        self.requests[signed.id] = signed.predicate

    def access_approval(self, signed, owner, keys):
        approvers = self.approvers.setdefault(signed.predicate["request"], {})
        approvers.setdefault(owner, set()).update(keys)

    def access_intent(self, signed, _owner, _keys):
        intent = signed.predicate
        self.intents[signed.id] = intent
        c2sp.require(intent["request"] in self.requests, f"intent {signed.id}: its request is not logged")
        request = self.requests[intent["request"]]
        within = all(intent["budget"][what] <= request["budget"][what] for what in ("objects", "rows", "bytes"))
        same = intent["class"] == request["class"] and intent["region"] == request["region"]
        within = within and same and set(intent["countries"]) <= set(request["countries"])
        c2sp.require(within, f"intent {signed.id}: more than its request")
        (rules,) = [it for it in self.residency["classes"] if it["id"] == intent["class"]]
        approvers = self.approvers.get(intent["request"], {})
        for needed in rules.get("approvals", []):
            found = len(approvers.get(needed["organisation"], ()))
            c2sp.require(found >= needed["count"], f"intent {signed.id}: too few approvals")

    def access_outcome(self, signed, _owner, _keys):
        intent = signed.predicate["intent"]
        c2sp.require(intent in self.intents, f"outcome {signed.id}: its intent is not logged")
        c2sp.require(intent not in self.outcomes, f"outcome {signed.id}: a second one")
        self.outcomes[intent] = signed.predicate

    def access_review(self, _signed, _owner, _keys):
        self.reviews += 1

    def access_redaction(self, _signed, _owner, _keys):
        pass

    def custody_report(self, signed, owner, _keys):
        report = signed.predicate
        intents = [it for it in self.intents.values() if it["region"] == report["region"]]
        objects = sum(it["budget"]["objects"] for it in intents)
        before = self.reports.get((owner, report["region"]), (0, 0))
        self.reports[owner, report["region"]] = (report["uses"], report["opened"])
        more = report["uses"] > len(intents) or report["opened"] > objects
        c2sp.require(not more, f"{owner} has opened more than the log says")
        less = report["uses"] < before[0] or report["opened"] < before[1]
        c2sp.require(not less, f"{owner} has opened less than before")

    def missing(self, now):
        for identity, intent in self.intents.items():
            expires = datetime.strptime(intent["expires"], "%Y-%m-%dT%H:%M:%S%z").timestamp()
            if identity not in self.outcomes and now > expires + GRACE_S:
                self.findings.append({"detail": f"intent {identity} has no outcome"})


def main():
    policy = read_policy(sys.argv[2], sys.argv[3])
    witnessing = c2sp.Policy(policy["witnessing"]["policy"])
    checkpoint, _, entries, leaves, _ = read(Log(sys.argv[1]), witnessing)
    c2sp.require(checkpoint.origin == policy["residency"]["log"], f"{checkpoint.origin} has no accesses")
    for name in sys.argv[4:]:
        earlier = c2sp.Checkpoint(open(name, encoding="utf-8").read())
        witnessing.verify(earlier)
        has_grown(leaves, checkpoint, earlier)
    ledger = Ledger(policy)
    for index, entry in enumerate(entries):
        ledger.entry(index, entry)
    ledger.missing(datetime.now(timezone.utc).timestamp())
    done = [it for it in ledger.outcomes.values() if it["ended"] == "done"]
    found = {
        "entries": checkpoint.size,
        "requests": len(ledger.requests),
        "accesses": len(ledger.intents),
        "done": len(done),
        "rows": sum(it["rows"] for it in done),
        "bytes": sum(it["bytes"] for it in done),
        "reviews": ledger.reviews,
        "findings": ledger.findings,
    }
    print(json.dumps(found))
    sys.exit(1 if ledger.findings else 0)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(f"error: {error}")
