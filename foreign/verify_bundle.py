"""Verifies a release offline, from the evidence in its bundle alone.

    verify_bundle.py BUNDLE POLICY-ENVELOPE POLICY-ID FILE

Of the policy: its hash, and what it demands of a release. Of the bundle: every entry's place in a log
under a quorum of witnesses; a release, its result and the approvals, signed by whom the policy names; and
that FILE is what was released. Dates, status and revocation are left to others.
"""

import hashlib
import json
import sys

import c2sp
from dsse import Signed


def read_json(name):
    """JSON in the one form that is accepted: read and written again it is the same."""
    data = open(name, "rb").read()
    value = json.loads(data)
    c2sp.require(canonical(value) == data, f"{name} is not in canonical form")
    return value


def canonical(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def read_policy(name, expected_id):
    signed = Signed(read_json(name))
    c2sp.require(signed.id == expected_id and signed.type == "policy", f"this policy is {signed.id}")
    return signed.predicate["policy"]


def keys_of(policy, organisation, role):
    found = [one for one in policy["organisations"] if one["id"] == organisation]
    return [key["key"] for key in found[0]["keys"] if key["role"] == role]


def require_all(signed, policy, thresholds, role):
    for threshold in thresholds:
        signed.require_signed(keys_of(policy, threshold["organisation"], role), threshold["count"])


def recorded(bundle, witnessing):
    """The statements of a bundle, by type, each of them in a log that the policy knows."""
    found = {}
    checkpoints = [c2sp.Checkpoint(note) for note in bundle["checkpoints"]]
    for entry in bundle["entries"]:
        checkpoint, signed = checkpoints[entry["checkpoint"]], Signed(entry["envelope"])
        witnessing.verify(checkpoint)
        c2sp.require(checkpoint.origin == signed.predicate["position"]["log"], f"{signed.id} is in another log")
        path = [c2sp.unbase64(node) for node in entry["path"]]
        leaf = c2sp.leaf_hash(canonical(entry["envelope"]))
        c2sp.verify_inclusion(entry["index"], checkpoint.size, leaf, path, checkpoint.root)
        found.setdefault(signed.type, []).append(signed)
    return found


def main():
    bundle, policy = read_json(sys.argv[1]), read_policy(sys.argv[2], sys.argv[3])
    found = recorded(bundle, c2sp.Policy(policy["witnessing"]["policy"]))
    (release,), (result,), approvals = found["release"], found["result"], found["approval"]
    lane = next(lane for lane in policy["lanes"] if lane["lane"] == release.predicate["lane"])

    require_all(release, policy, lane["release"], "release")
    require_all(result, policy, lane["builders"], "builder")
    for threshold in lane["approvals"]:
        keys = keys_of(policy, threshold["organisation"], "approver")
        signers = set()
        for approval in approvals:
            c2sp.require(approval.predicate["result"] == result.id, "an approval of another result")
            signers |= {key for key in keys if signed_by(approval, key)}
        c2sp.require(len(signers) >= threshold["count"], f"too few approvals of {threshold['organisation']}")
    c2sp.require(release.predicate["result"] == result.id, "a release of another result")
    c2sp.require(release.predicate["policy"] == sys.argv[3], "a release under another policy")
    c2sp.require(release.subjects.items() <= result.subjects.items(), "what was released was not built")

    digest = hashlib.sha256(open(sys.argv[4], "rb").read()).hexdigest()
    c2sp.require(digest in release.subjects.values(), "the file is not what was released")
    what = release.predicate
    print(f"{what['product']} {what['version']}, release {what['number']}, {len(bundle['entries'])} entries")


def signed_by(signed, key):
    try:
        signed.require_signed([key], 1)
        return True
    except Exception:  # securesystemslib's own
        return False


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(f"error: {error}")
