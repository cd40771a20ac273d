"""Verifies that an entry is in a log, offline (C2SP tlog-proof).

    verify_proof.py PROOF ENTRY POLICY
"""

import sys

import c2sp


def main():
    proof, policy = (open(name, encoding="utf-8").read() for name in (sys.argv[1], sys.argv[3]))
    proof, entry = c2sp.Proof(proof), open(sys.argv[2], "rb").read()
    cosigned = proof.verify(entry, c2sp.Policy(policy))
    print(f"entry {proof.index} of {proof.checkpoint.size}, cosigned by {' '.join(sorted(cosigned))}")


if __name__ == "__main__":
    try:
        main()
    except c2sp.Wrong as error:
        sys.exit(f"error: {error}")
