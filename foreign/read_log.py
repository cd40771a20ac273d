"""Reads a whole log over HTTP and checks all of it.

    read_log.py URL POLICY [EARLIER-CHECKPOINT…]

Checks the checkpoint under the policy, every entry bundle against the leaf tiles, every tile of every
level against the one below, the root, an inclusion proof for each entry (up to 64 of them, spread), and
that each earlier checkpoint is of the same tree. Prints one line of what it saw.
"""

import sys
import urllib.request

import c2sp


class Log:
    """A log at a URL prefix."""

    def __init__(self, prefix):
        self.prefix = prefix.rstrip("/")

    def get(self, path, content_type):
        request = urllib.request.Request(f"{self.prefix}/{path}", headers={"Accept-Encoding": "identity"})
        with urllib.request.urlopen(request, timeout=60) as response:
            c2sp.require(response.headers["Content-Type"] == content_type, f"{path}: {response.headers}")
            return response.read()

    def checkpoint(self):
        return self.get("checkpoint", "text/plain; charset=utf-8").decode()

    def tiles(self, level, count):
        """All hashes of a level, of which there are `count`, tile by tile."""
        hashes = []
        for number in range(-(-count // 256)):
            width = min(256, count - number * 256)
            tile = self.get(c2sp.tile_path(level, number, width), "application/octet-stream")
            c2sp.require(len(tile) == 32 * width, f"tile {level}/{number} has {len(tile)} bytes")
            hashes += [tile[at : at + 32] for at in range(0, len(tile), 32)]
        return hashes

    def entries(self, size):
        for number in range(-(-size // 256)):
            width = min(256, size - number * 256)
            bundle = self.get(c2sp.tile_path("entries", number, width), "application/octet-stream")
            yield from c2sp.entries_in(bundle, width)


def read(log, policy):
    """Everything, each part checked against the next: checkpoint, entries, leaf hashes, and how many levels."""
    checkpoint = c2sp.Checkpoint(log.checkpoint())
    cosigned = policy.verify(checkpoint)
    size = checkpoint.size

    leaves = log.tiles(0, size)
    entries = list(log.entries(size))
    c2sp.require([c2sp.leaf_hash(entry) for entry in entries] == leaves, "entries and leaf tiles differ")
    below, level = leaves, 1
    while len(below) >= 256:
        full = len(below) // 256
        hashes = log.tiles(level, full)
        expected = [c2sp.root_of(below[256 * number : 256 * (number + 1)]) for number in range(full)]
        c2sp.require(hashes == expected, f"the tiles of level {level} are not those of the level below")
        below, level = hashes, level + 1
    c2sp.require(c2sp.root_of(leaves) == checkpoint.root, "the tiles have another root than the checkpoint")
    return checkpoint, cosigned, entries, leaves, level


def has_grown(leaves, checkpoint, earlier):
    """`earlier` is of the same tree, when it was smaller."""
    c2sp.require(earlier.size <= checkpoint.size, f"showed {earlier.size} entries before, now {checkpoint.size}")
    proof = c2sp.consistency_proof(earlier.size, leaves)
    c2sp.verify_consistency(earlier.size, earlier.root, checkpoint.size, checkpoint.root, proof)


def main():
    log, policy = Log(sys.argv[1]), c2sp.Policy(open(sys.argv[2], encoding="utf-8").read())
    checkpoint, cosigned, entries, leaves, level = read(log, policy)
    size = checkpoint.size

    some = range(0, size, max(1, size // 64))
    for index in some:
        path = c2sp.inclusion_path(index, leaves)
        c2sp.verify_inclusion(index, size, leaves[index], path, checkpoint.root)
    for name in sys.argv[3:]:
        earlier = c2sp.Checkpoint(open(name, encoding="utf-8").read())
        policy.verify(earlier)
        has_grown(leaves, checkpoint, earlier)
    print(
        f"{checkpoint.origin}: {size} entries, {level} levels, {len(some)} inclusion proofs, "
        f"{len(sys.argv[3:])} consistency proofs, cosigned by {' '.join(sorted(cosigned))}"
    )


if __name__ == "__main__":
    main()
