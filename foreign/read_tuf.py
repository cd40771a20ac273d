"""Reads a TUF repository with python-tuf, the reference implementation.

    read_tuf.py REPOSITORY STATE TARGET…

REPOSITORY holds `metadata/` and `targets/`; it is trusted by its `metadata/1.root.json`. Two clients in
turn, the second on what the first left in STATE. Prints each target's SHA-256 and path.
"""

import hashlib
import os
import sys

from tuf.ngclient import Updater

from serve import serve


def main():
    repository, state, targets = sys.argv[1], sys.argv[2], sys.argv[3:]
    root = open(os.path.join(repository, "metadata", "1.root.json"), "rb").read()
    os.makedirs(os.path.join(state, "targets"))
    with serve(repository) as url:
        for _ in range(2):
            folders = os.path.join(state, "metadata"), f"{url}/metadata/", os.path.join(state, "targets")
            updater = Updater(*folders, f"{url}/targets/", bootstrap=root)
            updater.refresh()
            for target in targets:
                info = updater.get_targetinfo(target)
                assert info is not None, f"no target {target}"
                path = updater.find_cached_target(info) or updater.download_target(info)
            assert updater.get_targetinfo("products/nothing/1/bundle") is None
    for target in targets:
        path = updater.find_cached_target(updater.get_targetinfo(target))
        print(hashlib.sha256(open(path, "rb").read()).hexdigest(), target)


if __name__ == "__main__":
    main()
